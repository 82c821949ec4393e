"""The embedded base model: Qwen2.5-VL's architecture at three million parameters, and its recipe.

`python -m recipes.nano` rebuilds `pixelis/models/nano/` from scratch.
"""
