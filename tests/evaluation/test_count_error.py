from math import sqrt

import pytest

from pixelis.evaluation.count_error import MAX_ERROR, count_errors, told_count
from tests.evaluation.handmade import make_example, make_rollout

NUMBERS = {"num_samples": 200, "seed": 0}


@pytest.mark.parametrize(
    ("said", "count"),
    [("4", 4), ("Four", 4), (" fifteen ", 15), ("4.0", 4), ("1,000", 1000), ("sixteen", None),
     ("3 or 4", None), ("three dogs", None), ("", None), (None, None)],
)  # fmt: skip
def test_what_an_answer_counts(said, count):
    assert told_count(said) == count


def test_the_root_of_the_mean_square_and_what_is_no_number_counts_as_none():
    truths = ("4", "2", "3", "5")
    groups = ("simple", "simple", "complex", "complex")
    pairs = zip(truths, groups, strict=True)
    examples = [make_example(i, truth=t, difficulty=g) for i, (t, g) in enumerate(pairs)]
    said = ("four", "5", None, "many")
    rollouts = [make_rollout(e, a) for e, a in zip(examples, said, strict=True)]
    found = count_errors(rollouts, examples, **NUMBERS)
    assert list(found) == ["simple", "complex", "all"]
    score, untold = found["simple"]
    assert (score.value, score.num, untold) == (pytest.approx(sqrt(9 / 2)), 2, 0)
    assert (score.low, score.high) == (0, 3)
    assert (found["complex"][0].value, found["complex"][1]) == (pytest.approx(sqrt(34 / 2)), 2)
    assert (found["all"][0].value, found["all"][1]) == (pytest.approx(sqrt(43 / 4)), 2)


def test_one_wild_number_is_bounded():
    example = make_example(truth="1")
    score, _ = count_errors([make_rollout(example, "1e300")], [example], **NUMBERS)["all"]
    assert score.value == MAX_ERROR


def test_a_truth_that_is_no_number_is_named():
    example = make_example(truth="red")
    with pytest.raises(ValueError, match=r"must be a number, got 'red' \(example e0\)"):
        count_errors([make_rollout(example, "1")], [example], **NUMBERS)
