"""What a charging session took and what it costs: pure, exact, without I/O."""
