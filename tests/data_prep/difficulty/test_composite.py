import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.data.example import SAMPLE_TYPES, Step
from pixelis.data_prep.difficulty.composite import (
    COMPONENTS,
    FULL_STEPS,
    composite_scorer,
    example_components,
)
from pixelis.data_prep.tasks import TASK_WEIGHTS
from pixelis.operations import OPERATIONS

BOXES = [(x, 0, x + 20, 20) for x in range(0, 80)]
STEPS = st.builds(
    lambda operation, box, thought, supervised: Step(
        thought, operation, {"bbox": list(box)}, {}, None, supervised
    ),
    st.sampled_from(list(OPERATIONS)),
    st.sampled_from(BOXES),
    st.sampled_from(["", "Look."]),
    st.booleans(),
)
DRAWN = {
    "trajectory": st.lists(STEPS, max_size=25).map(tuple),
    "sample_type": st.sampled_from(SAMPLE_TYPES),
    "task": st.sampled_from([*TASK_WEIGHTS, "imported"]),
    "conclusion": st.sampled_from(["", "So it is."]),
}


def test_a_worked_example(build, build_step, weights):
    steps = (build_step(BOXES[0]), build_step(BOXES[1], operation="READ_TEXT"))
    example = build(trajectory=steps, task="object_counting")
    (score,) = composite_scorer(weights, {"object_counting": 0.6})([example])
    assert score.components == {
        "trajectory": pytest.approx(math.log(3) / math.log(16)),
        "operations": pytest.approx(0.8 * (2 + 1) / 2 / 3 + 0.2 * 2 / len(OPERATIONS)),
        "reasoning": pytest.approx(math.log(4) / math.log(16)),
        "errors": 0.0,
        "task": 0.6,
    }
    assert score.value == pytest.approx(sum(weights[n] * score.components[n] for n in COMPONENTS))


@given(st.fixed_dictionaries(DRAWN))
def test_all_parts_are_in_the_unit_interval(build, weights, drawn):
    (score,) = composite_scorer(weights, TASK_WEIGHTS)([build(**drawn)])
    assert tuple(score.components) == COMPONENTS
    assert all(0 <= part <= 1 for part in score.components.values())
    assert 0 <= score.value <= 1


@given(st.fixed_dictionaries(DRAWN), st.integers(2, 4))
def test_more_of_the_same_steps_are_never_easier(build, weights, drawn, times):
    longer = drawn | {"trajectory": drawn["trajectory"] * times}
    short, long = composite_scorer(weights, TASK_WEIGHTS)([build(**drawn), build(**longer)])
    # Up to rounding: the mean of the operations' weights is the same.
    assert all(short.components[n] <= long.components[n] + 1e-12 for n in COMPONENTS)
    if 0 < len(drawn["trajectory"]) < FULL_STEPS:
        assert short.value < long.value


@given(st.lists(STEPS, max_size=20).map(tuple), STEPS)
def test_one_more_step_of_any_kind_is_never_shorter_shallower_or_cleaner(build, steps, step):
    short, long = (
        example_components(build(trajectory=each), {}) for each in (steps, (*steps, step))
    )
    for name in ("trajectory", "reasoning", "errors"):
        assert short[name] <= long[name]


def test_weights_that_sum_to_one_but_for_rounding(build):
    heavy = dict.fromkeys(COMPONENTS, 0.0) | {"task": 1.0000005}
    assert composite_scorer(heavy, {"object_counting": 1.0})([build()])[0].value == 1.0


def test_thoughts_count_and_empty_ones_do_not(build, build_step):
    def depth(**changes):
        return math.expm1(example_components(build(**changes), {})["reasoning"] * math.log(16))

    steps = (build_step(BOXES[0]), build_step(BOXES[1], thought=" \n"))
    assert depth(trajectory=steps) == pytest.approx(2)
    assert depth(trajectory=steps, conclusion="") == pytest.approx(1)
    # The form of a thought does not matter, nor its length.
    assert depth(trajectory=(build_step(BOXES[0], thought="<think> hm {" * 50),)) == depth()


def test_a_repeated_call_is_an_error(build, build_step):
    first, second = build_step(BOXES[0]), build_step(BOXES[1])
    again = build_step(BOXES[0], thought="Once more.")
    other = build_step(BOXES[0], operation="READ_TEXT")
    for steps, errors in (
        ((first, second), 0),
        ((first, second, again), 0.1),
        ((first, first, first), 0.2),
        ((first, other), 0),
    ):
        components = example_components(build(trajectory=steps), {})
        assert components["errors"] == pytest.approx(errors)


def test_corrections_and_traps_are_harder(build, build_step, weights):
    score = composite_scorer(weights, TASK_WEIGHTS)
    mended = [build_step(box, supervised=False) for box in BOXES[:3]]
    right = build_step(BOXES[9])
    one, two, three = (
        build(sample_type="self_correction", trajectory=(*mended[:n], right)) for n in (1, 2, 3)
    )
    parts = [each.components["errors"] for each in score([one, two, three])]
    assert parts == pytest.approx([0.5, 0.6, 0.7])
    kinds = ("positive", "outcome_negative", "self_correction", "trap_perceptual", "trap_logical")
    values = [each.value for each in score([build(sample_type=kind) for kind in kinds])]
    assert values == sorted(set(values))


def test_long_trajectories_stop_counting_and_none_counts_nothing(build, build_step):
    full, longer, none = (
        example_components(build(trajectory=(build_step(BOXES[0]),) * n), {})
        for n in (FULL_STEPS, 40, 0)
    )
    assert full["trajectory"] == longer["trajectory"] == 1.0
    assert none["trajectory"] == none["operations"] == 0.0


def test_a_task_that_nobody_weighed_counts_as_medium(build):
    assert example_components(build(task="imported"), TASK_WEIGHTS)["task"] == 0.5
