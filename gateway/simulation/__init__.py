"""Simulated charge points, and a ThingsBoard double, for `demo`, `simulate` and tests."""
