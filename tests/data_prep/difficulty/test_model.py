import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data_prep.difficulty import loss_score, model_scorer


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
    score = model_scorer(lambda given: [found[each.id] for each in given])
    assert [each.value for each in score(examples)] == [1.0, 0.0]
