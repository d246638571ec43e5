"""Stand-ins for the world outside: chargers to the south, ThingsBoard to the north."""
