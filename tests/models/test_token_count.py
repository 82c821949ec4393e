import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from pixelis.data.chat import example_messages
from pixelis.data.encode import Encoder
from pixelis.data_prep.generate import generate_example
from pixelis.models import token_count
from pixelis.models.token_count import TokenCounter


@pytest.fixture
def loads(processor, monkeypatch):
    """The names under which a processor was loaded."""
    loaded = []

    def load_processor(name):
        loaded.append(name)
        return processor

    monkeypatch.setattr("pixelis.models.load.load_processor", load_processor)
    token_count._counter.cache_clear()
    yield loaded
    token_count._counter.cache_clear()


@pytest.fixture(scope="module")
def example():
    return generate_example(seed=0, index=0, task="object_counting", sample_type="positive")


def test_an_example_is_as_long_as_training_sees_it(loads, processor, example):
    encoded = Encoder(processor).encode(example_messages(example))
    assert TokenCounter("some-model")(example) == len(encoded)


def test_the_processor_is_loaded_once_with_the_first_count(loads, example):
    count = TokenCounter("some-model")
    assert loads == []
    assert count(example) == TokenCounter("some-model")(example)
    assert loads == ["some-model"]


def test_visual_tokens_count(loads, example):
    larger = replace(example, images=(Image.new("RGB", (448, 448)),))
    assert TokenCounter("m")(larger) > TokenCounter("m")(example)


def test_it_can_be_sent_to_a_worker():
    assert pickle.loads(pickle.dumps(TokenCounter("m"))) == TokenCounter("m")


def test_importing_it_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from pixelis.models.token_count import TokenCounter; TokenCounter('m');"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr
