"""A finished run goes into weights/, and weights/ onto the Hub."""
