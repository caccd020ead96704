"""A recipe and a `Manifest` become a run folder."""
