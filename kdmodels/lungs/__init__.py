"""Where the lungs are on a film: a small network finds them, and says how sure it is."""

from kdmodels.lungs.find import LungFinder, Lungs
from kdmodels.lungs.stored import stored_finder

__all__ = ["LungFinder", "Lungs", "stored_finder"]
