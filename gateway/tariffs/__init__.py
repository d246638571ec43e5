"""OCPI tariffs: read, checked, and the prices that hold at an instant.  Without I/O."""
