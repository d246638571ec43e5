"""The configuration: one TOML file and the environment, read into frozen values."""
