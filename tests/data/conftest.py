import re
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
    """A thousand examples: every task in every sample type."""
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
def match_phrasing():
    """Find which phrasing a question (its first line) is, and what fills its gaps."""

    def gap(name):
        words = "left of|right of|above|below" if name[1] == "relation" else ".+"
        return f"(?P<{name[1]}>{words})"

    def match(question, phrasings):
        line = question.split("\n")[0]
        for phrasing in phrasings:
            pattern = re.sub(r"\\\{(\w+)\\\}", gap, re.escape(phrasing))
            if matched := re.fullmatch(pattern, line):
                return phrasing, matched.groupdict()
        return None, {}

    return match
