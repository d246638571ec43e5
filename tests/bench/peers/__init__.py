"""Central systems that others would build, to measure ours against."""
