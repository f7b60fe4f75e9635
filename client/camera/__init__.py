"""Intent to poses: the rig, the planner, the live view and late reprojection."""
