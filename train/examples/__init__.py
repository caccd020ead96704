"""The synthetic examples of the page: pictures that show nobody."""
