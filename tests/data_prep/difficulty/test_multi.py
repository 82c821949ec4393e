import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pixelis.data.example import SAMPLE_TYPES, Step
from pixelis.data_prep.difficulty.composite import log_scaled
from pixelis.data_prep.difficulty.multi import (
    GROUPS,
    edge_density,
    find_boxes,
    multi_scorer,
    occlusion,
    smallness,
    view_components,
)

NAMES = {
    "visual/clutter",
    "visual/objects",
    "visual/smallness",
    "visual/occlusion",
    "linguistic/words",
    "linguistic/clauses",
    "procedural/trajectory",
    "procedural/operations",
    "procedural/reasoning",
    "procedural/errors",
}
WORDS = st.text(st.sampled_from("ab ,.;\nand or which"), max_size=80)
SHARES = st.floats(0, 1)


def striped(lines, size=(96, 96)):
    """A grey image with so many vertical lines."""
    image = Image.new("RGB", size, (230, 230, 230))
    draw = ImageDraw.Draw(image)
    for number in range(lines):
        draw.line([(4 * number, 0), (4 * number, size[1])], fill=(20, 20, 20))
    return image


def provenance(*occluded):
    return {"objects": [{"name": "circle", "occluded": share} for share in occluded]}


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {
            "question": WORDS,
            "sample_type": st.sampled_from(SAMPLE_TYPES),
            "provenance": st.lists(SHARES, max_size=60).map(lambda shares: provenance(*shares)),
        }
    ),
    st.integers(0, 2**16),
    st.lists(st.integers(0, 90), max_size=20),
)
def test_all_parts_are_in_the_unit_interval(build, build_step, drawn, seed, places):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    steps = tuple(build_step((x, 0, x + 9, 8)) for x in places)
    example = build(images=(Image.fromarray(noise),), trajectory=steps, **drawn)
    (score,) = multi_scorer()([example])
    assert set(score.components) == NAMES
    assert all(0 <= part <= 1 for part in score.components.values())
    means = []
    for group in GROUPS:
        parts = [part for name, part in score.components.items() if name.startswith(group)]
        means.append(sum(parts) / len(parts))
    assert score.value == pytest.approx(sum(means) / 3)


def test_clutter_at_its_ends():
    assert edge_density(Image.new("RGB", (40, 40), (3, 200, 90))) == 0
    assert edge_density(striped(24)) == 1
    assert edge_density(Image.new("RGB", (1, 1))) == 0
    # Soft changes and grain are no edges.
    assert edge_density(Image.linear_gradient("L")) == 0
    # A photograph's size does not matter by itself: it is reduced first.
    large = striped(10).resize((1920, 1920), Image.Resampling.NEAREST)
    assert 0 < edge_density(large) < 0.5


def test_clutter_of_several_images_is_their_mean(build):
    plain, full = striped(0), striped(24)
    assert view_components(build(images=(plain, full)))["visual/clutter"] == 0.5
    assert view_components(build(images=()))["visual/clutter"] == 0


def test_the_smallest_box_counts_whether_asked_or_found(build, build_step):
    asked = build_step((0, 0, 50, 40))  # a quarter of the image
    assert smallness(build(trajectory=(asked,))) == 0.5
    found = Step("", "SEGMENT_OBJECT_AT", {"x": 5, "y": 5}, {"area": 9, "bbox": [0, 0, 10, 8]})
    assert smallness(build(trajectory=(asked, found))) == pytest.approx(0.9)
    tracked = Step("", "TRACK_OBJECT", {}, {"boxes": [[0, 0, 50, 40], [0, 0, 10, 8]]})
    assert smallness(build(trajectory=(tracked,))) == pytest.approx(0.9)
    whole = build_step((0, 0, 100, 80))
    beyond = build_step((-50, 0, 400, 400))
    for trajectory in ((), (whole,), (beyond,)):
        assert smallness(build(trajectory=trajectory)) == 0
    assert smallness(build(images=())) == 0


def test_only_boxes_are_boxes():
    assert find_boxes({"frames": [1, 2, 3, 4], "mask": {"counts": [0, 1, 2, 3]}}) == []
    assert find_boxes({"bbox": [5, 5, 1, 1]}) == find_boxes({"bbox": "1, 2, 3, 4"}) == []
    assert find_boxes({"bbox": [1, 2, 3]}) == find_boxes({"boxes": [[1, 2], None]}) == []
    assert find_boxes({"bbox": [1, 2, True, 4]}) == []
    assert find_boxes({"bbox": (1, 2, 3, 4.5)}) == [(1.0, 2.0, 3.0, 4.5)]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([{"occluded": 0.25}, {"occluded": 0.5}, {"name": "circle"}], 0.5),
        ([{"occluded": 7}, {}], 1.0),
        ([{"occluded": "much"}, {"occluded": None}, "circle"], 0.0),
        ("many", 0.0),
        (None, 0.0),
    ],
)
def test_occlusion_as_records_tell_it(build, objects, expected):
    assert occlusion(build(provenance={"objects": objects})) == expected
    assert occlusion(build()) == 0.0


@given(WORDS, WORDS)
def test_a_question_that_goes_on_is_never_easier(build, question, rest):
    short, long = (build(question=text) for text in (question, f"{question} {rest}"))
    low, high = view_components(short), view_components(long)
    assert all(
        low[f"linguistic/{each}"] <= high[f"linguistic/{each}"] for each in ("words", "clauses")
    )


@pytest.mark.parametrize(
    ("name", "easier", "harder"),
    [
        ("visual/clutter", {"images": (striped(3),)}, {"images": (striped(5),)}),
        ("visual/objects", {"provenance": provenance(0, 0)}, {"provenance": provenance(0, 0, 0)}),
        (
            "visual/occlusion",
            {"provenance": provenance(0.2)},
            {"provenance": provenance(0.3)},
        ),
        ("visual/smallness", {"trajectory": [(0, 0, 9, 9)]}, {"trajectory": [(0, 0, 8, 9)]}),
        ("linguistic/words", {"question": "red " * 4}, {"question": "red " * 5}),
        (
            "linguistic/clauses",
            {"question": "Name the colour here now please now"},
            {"question": "Name circle, square or triangle now please"},
        ),
        (
            "procedural/trajectory",
            {"trajectory": [(0, 0, 20, 20)]},
            {"trajectory": [(0, 0, 20, 20), (40, 0, 60, 20)]},
        ),
        ("procedural/errors", {}, {"sample_type": "trap_logical"}),
    ],
)
def test_each_component_grows_with_what_makes_it_hard(build, build_step, name, easier, harder):
    """The harder example has more of the component, no less of any, and a larger value."""
    made = []
    for changes in (easier, harder):
        if "trajectory" in changes:
            changes = changes | {"trajectory": tuple(map(build_step, changes["trajectory"]))}
        made.append(build(**changes))
    low, high = multi_scorer()(made)
    assert low.components[name] < high.components[name]
    assert all(low.components[each] <= high.components[each] for each in NAMES)
    assert low.value < high.value


def test_the_task_plays_no_part(build):
    assert view_components(build(task="a")) == view_components(build(task="text_extraction"))


@given(st.integers(0, 200), st.integers(1, 100))
def test_the_logarithmic_scale_rises_to_one(count, full):
    value = log_scaled(count, full)
    assert 0 <= value <= 1
    assert value <= log_scaled(count + 1, full)
    assert (value == 1) == (count >= full)
    assert log_scaled(0, full) == 0
