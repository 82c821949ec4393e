"""The search over a curriculum's settings; the only package that imports Optuna."""
