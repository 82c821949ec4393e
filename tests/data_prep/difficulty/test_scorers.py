"""The scorers behind one signature, and the model's."""

import math
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data_prep.difficulty import SCORERS, Score, build_scorer, loss_score
from pixelis.data_prep.tasks import TASK_WEIGHTS
from pixelis.errors import ConfigError


def certain(examples):
    return [0.0 for _ in examples]


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_scores_every_kind_of_example(name, one_of_each, weights):
    score = build_scorer(name, weights=weights, task_weights=TASK_WEIGHTS, answer_losses=certain)
    scores = score(one_of_each)
    assert len(scores) == len(one_of_each)
    assert all(isinstance(each, Score) for each in scores)
    names = {tuple(each.components) for each in scores}
    assert len(names) == 1, "every example of a data set has the same components"
    assert score(one_of_each[:1]) == scores[:1], "a score does not depend on the others"
    assert score([]) == []


def test_the_model_scorer_without_a_model(weights):
    expected = "difficulty.scorer model needs a base model, and none was given"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        build_scorer("model", weights=weights)


def test_nothing_here_imports_torch():
    modules = (
        "pixelis.data_prep.difficulty",
        "pixelis.data_prep.grading",
        "pixelis.data_prep.figures",
        "pixelis.data_prep.summary",
        "pixelis.runs.prepare",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.floats(0, 50), min_size=2, max_size=2).map(sorted))
def test_a_larger_loss_is_never_easier(losses):
    low, high = (loss_score(loss) for loss in losses)
    assert 0 <= low.value <= high.value <= 1
    assert high.components == {"answer_loss": high.value}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (0.0, 0.0),
        (1.0, 1 - math.exp(-1)),
        (math.inf, 1.0),
        (math.nan, 1.0),
        (-1e-9, 0.0),  # of rounding
    ],
)
def test_scores_by_hand(loss, expected):
    assert loss_score(loss).value == pytest.approx(expected)


def test_an_example_that_cannot_be_read_is_hard_and_the_others_have_their_scores(build):
    examples = [build(id="a"), build(id="b")]
    found = {"a": math.inf, "b": 0.0}
    losses = lambda given: [found[each.id] for each in given]  # noqa: E731
    score = build_scorer("model", weights={}, answer_losses=losses)
    assert [each.value for each in score(examples)] == [1.0, 0.0]
