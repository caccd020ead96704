"""Untrusted bytes become a checked picture, and that a network's input."""
