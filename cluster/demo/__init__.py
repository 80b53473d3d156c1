"""`make demo`: the main job, on real photographs, in a few minutes."""
