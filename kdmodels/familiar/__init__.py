"""Does a picture look like its modality?"""

from kdmodels.familiar.modality import Familiarity, FamiliarityError, check

__all__ = ["Familiarity", "FamiliarityError", "check"]
