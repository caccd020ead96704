"""Where a network looked: Score-CAM, how alike two maps are, and how they are drawn."""
