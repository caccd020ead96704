"""A comparison as PNG, PDF and JSON."""
