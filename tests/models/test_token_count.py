import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from pixelis.data.chat import example_messages
from pixelis.data.encode import Encoder
from pixelis.data_prep.generate import generate_example
from pixelis.models import token_count
from pixelis.models.token_count import count_tokens, explain_refusal


@pytest.fixture
def loads(processor, monkeypatch):
    """The names under which a processor was loaded."""
    loaded = []

    def load_processor(name):
        loaded.append(name)
        return processor

    monkeypatch.setattr("pixelis.models.load.load_processor", load_processor)
    for cached in (token_count._load_encoder, explain_refusal):
        cached.cache_clear()
    yield loaded
    for cached in (token_count._load_encoder, explain_refusal):
        cached.cache_clear()


@pytest.fixture(scope="module")
def example():
    return generate_example(seed=0, index=0, task="object_counting", sample_type="positive")


def test_an_example_is_as_long_as_training_sees_it(loads, processor, example):
    encoded = Encoder(processor).encode(example_messages(example))
    assert count_tokens("some-model", example) == len(encoded)


def test_the_processor_is_loaded_once_with_the_first_count(loads, example):
    assert loads == []
    assert count_tokens("some-model", example) == count_tokens("some-model", example)
    assert loads == ["some-model"]


def test_visual_tokens_count(loads, example):
    larger = replace(example, images=(Image.new("RGB", (448, 448)),))
    assert count_tokens("m", larger) > count_tokens("m", example)


def test_importing_it_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from pixelis.models.token_count import count_tokens;"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr


def test_sizes_that_the_processor_refuses_are_explained(loads):
    for size in ((900, 4), (4, 900), (201, 1)):
        assert explain_refusal("m", size).startswith(
            f"the model's processor refuses an image of {size[0]} x {size[1]} pixels: absolute "
        )
    assert explain_refusal("m", (800, 4)) == explain_refusal("m", (1, 1)) == ""
