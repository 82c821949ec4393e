"""The published models' configurations with their known numbers of parameters."""

from types import SimpleNamespace

import pytest

from pixelis.models.families import published_config

# In all, and of an adapter of rank 32 on the language model. They check the package's sizes.
NUM_PARAMETERS = {
    "Qwen2.5-VL-3B": (3_754_622_976, 59_867_136),
    "Qwen2.5-VL-7B": (8_292_166_656, 80_740_352),
    "Qwen2.5-VL-72B": (73_410_777_344, 421_068_800),
    "Qwen3-VL-4B": (4_437_815_808, 66_060_288),
    "Qwen3-VL-8B": (8_767_123_696, 87_293_952),
}


@pytest.fixture(scope="session")
def published():
    """Name -> config, num_parameters, num_trainable."""
    return {
        name: SimpleNamespace(
            config=published_config(name), num_parameters=whole, num_trainable=adapter
        )
        for name, (whole, adapter) in NUM_PARAMETERS.items()
    }
