"""The admin port: health, readiness, metrics and the frame trace."""
