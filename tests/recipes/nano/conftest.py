from pathlib import Path

import pytest
import torch

import recipes.nano
from pixelis.data.encode import Encoder
from recipes.nano.architecture import build_config, build_model, build_processor
from recipes.nano.blend import build_texts
from recipes.nano.tokenizer import train_tokenizer

TEMPLATE = Path(recipes.nano.__file__).parent / "chat_template.jinja"


@pytest.fixture(scope="session")
def texts():
    return build_texts(0, 600)


@pytest.fixture(scope="session")
def template():
    return TEMPLATE.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tokenizer(texts, template):
    """The base's tokenizer, trained on few texts."""
    return train_tokenizer(iter(texts), template)


@pytest.fixture(scope="session")
def processor(tokenizer):
    return build_processor(tokenizer)


@pytest.fixture(scope="session")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture
def fresh_model(tokenizer):
    """Build the untrained base, the same each time."""

    def build():
        torch.manual_seed(0)
        return build_model(build_config(tokenizer))

    return build


@pytest.fixture
def one_thread():
    """Sums, and so weights, depend on how they are split among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
