"""The command line: `ocpp-gateway run`, `check`, `sessions`, `replay` and the others."""
