"""The networks: how each is built, stored, found and verified."""
