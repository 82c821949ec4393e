import importlib.util
import sys
from pathlib import Path

import pytest

import pixelis.models.base
from pixelis.data.encode import Encoder
from pixelis.data.example import SAMPLE_TYPES
from pixelis.data.generate import generate_example
from pixelis.data.tasks import TASKS
from pixelis.models.base.architecture import build_processor
from pixelis.models.base.blend import build_texts
from pixelis.models.base.tokenizer import train_tokenizer

TEMPLATE = Path(pixelis.models.base.__file__).parent / "chat_template.jinja"
EXAMPLES_PER_KIND = 40


@pytest.fixture(scope="session")
def examples():
    """Some thousand examples: every task in every sample type."""
    return [
        generate_example(seed=5, index=index, task=task, sample_type=sample_type)
        for task in TASKS
        for sample_type in SAMPLE_TYPES
        for index in range(EXAMPLES_PER_KIND)
    ]


@pytest.fixture(scope="session")
def one_of_each(examples):
    """The first example of every task and sample type."""
    return examples[::EXAMPLES_PER_KIND]


@pytest.fixture(scope="session")
def processor():
    """The base's real processor, its tokenizer trained on few texts."""
    template = TEMPLATE.read_text(encoding="utf-8")
    return build_processor(train_tokenizer(iter(build_texts(0, 100)), template))


@pytest.fixture(scope="session")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture(scope="session")
def oracles():
    """The module beside this file; the tests' folders are no packages."""
    spec = importlib.util.spec_from_file_location("oracles", Path(__file__).with_name("oracles.py"))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def understood(examples, oracles):
    """The examples of a task, each with what its question asks by the oracle."""

    def of_task(task):
        return [(example, oracles.asked(example)) for example in examples if example.task == task]

    return of_task
