from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.evaluation.repeats import majority_answer, pass_at_k, repeat_fractions, wanted_ks
from tests.evaluation.handmade import make_example, make_rollout


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(num, data):
    right = data.draw(st.integers(0, num))
    k = data.draw(st.integers(1, num))
    subsets = list(combinations([True] * right + [False] * (num - right), k))
    expected = sum(any(chosen) for chosen in subsets) / len(subsets)
    assert pass_at_k(num, right, k) == pytest.approx(expected)


@pytest.mark.parametrize(("num", "right", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_of_what_cannot_be_is_refused(num, right, k):
    with pytest.raises(ValueError, match=f"got k={k}, num={num}, num_right={right}"):
        pass_at_k(num, right, k)


def test_ks():
    assert [wanted_ks(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("answers", "elected"),
    [
        (["3", "4", "3.0"], "3"),
        (["4", "3", "3.0", "4"], "4"),
        ([None, None, "5"], "5"),
        ([None, None], None),
    ],
)
def test_the_majority_answers(answers, elected):
    example = make_example(truth="3", task="object_counting")
    rollouts = [make_rollout(example, answer) for answer in answers]
    assert majority_answer(rollouts, example) == elected


def test_fractions_of_samples():
    examples = [make_example(0, truth="1"), make_example(1, truth="2")]
    answers = [["1", "1", "5", None], ["9", "9", "2", "8"]]
    samples = [
        [make_rollout(e, a) for a in said] for e, said in zip(examples, answers, strict=True)
    ]
    found = repeat_fractions(samples, examples)
    assert found["pass_at_1"] == [(0.5, 1), (0.25, 1)]
    assert found["pass_at_2"] == [(pytest.approx(5 / 6), 1), (0.5, 1)]
    assert found["pass_at_4"] == [(1.0, 1), (1.0, 1)]
    assert found["majority_accuracy"] == [(True, 1), (False, 1)]
