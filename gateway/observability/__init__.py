"""What operators see of a running gateway: logs, frames on the wire, lag."""
