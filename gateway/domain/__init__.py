"""The hearth: what is true of charging, without a clock, a socket or a disk."""
