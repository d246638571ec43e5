"""What `make bench` runs: the gateway beside its peers, one JSON line per figure."""
