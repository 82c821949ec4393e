import random

import pytest

from pixelis.data_prep.scenes import random_scene, render


@pytest.fixture(scope="session")
def scenes():
    """Some hundred drawn scenes, sparse to crowded, each with its image."""
    drawn = []
    for seed in range(200):
        rng = random.Random(f"operations:{seed}")
        scene = random_scene(rng, rng.randint(1, 12), rng.randint(0, 3))
        drawn.append((scene, render(scene)))
    return drawn
