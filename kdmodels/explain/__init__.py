"""Where a network looked: Score-CAM, how alike two maps are, and how they are drawn."""

from kdmodels.explain.differences import difference_overlay
from kdmodels.explain.overlays import overlay
from kdmodels.explain.scorecam import Step, explain, explain_progressively
from kdmodels.explain.similarity import agreement, share_inside

__all__ = [
    "Step",
    "agreement",
    "difference_overlay",
    "explain",
    "explain_progressively",
    "overlay",
    "share_inside",
]
