from dataclasses import replace

import pytest
from PIL import Image

from pixelis.data.example import Example, Step

WEIGHTS = {"trajectory": 0.3, "operations": 0.25, "reasoning": 0.2, "errors": 0.15, "task": 0.1}


def look(box, thought="Look here.", operation="GET_PROPERTIES", **changes):
    return Step(thought, operation, {"bbox": list(box)}, {"color": "red"}, **changes)


LOOK = look((0, 0, 20, 20))
EXAMPLE = Example(
    id="1",
    task="object_counting",
    sample_type="positive",
    question="How many red objects are there?",
    images=(Image.new("RGB", (100, 80), (235, 235, 235)),),
    trajectory=(LOOK,),
    conclusion="There is 1.",
    answer="1",
    ground_truth="1",
)


@pytest.fixture(scope="session")
def weights():
    """The guide's weights of the composite score."""
    return WEIGHTS


@pytest.fixture(scope="session")
def build():
    """Build the plain example with some fields changed."""
    return lambda **changes: replace(EXAMPLE, **changes)


@pytest.fixture(scope="session")
def build_step():
    """Build a look at a box."""
    return look
