"""Coordinates in stored pixels and in the pixels that the model sees."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pixelis.data.chat import example_messages
from pixelis.data.coordinates import (
    MAX_DESCRIBED_STEPS,
    Frame,
    as_seen,
    call_as_stored,
    frames_of,
    text_as_seen,
    values_as_seen,
)
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.example import SAMPLE_TYPES, Example, Step
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.regions import box_iou
from pixelis.data_prep.tasks import TASKS
from pixelis.models.load import load_processor
from pixelis.operations import OperationError, execute
from pixelis.operations.masks import decode_mask, encode_mask

NANO = "pixelis-nano"
RED = (220, 30, 40)


def encoder_for(min_pixels, max_pixels, patch_size=14):
    processor = load_processor(NANO, min_pixels=min_pixels, max_pixels=max_pixels)
    processor.image_processor.patch_size = patch_size
    return Encoder(processor)


@pytest.fixture(scope="module")
def double():
    """Sees 112 x 112 pixels as 224 x 224."""
    return encoder_for(224 * 224, 448 * 448)


@pytest.fixture(scope="module")
def half():
    """Sees 112 x 112 pixels as 56 x 56."""
    return encoder_for(784, 56 * 56)


# Against drawn images


def picture_seen(encoder, image):
    """What the processor makes of an image, put together again from the patches it hands out."""
    made = encoder.process_images([image])
    _, rows, columns = made["image_grid_thw"][0].tolist()
    processor = encoder.image_processor
    side, merge = processor.patch_size, processor.merge_size
    blocks = (rows // merge, columns // merge, merge, merge)
    shape = (*blocks, 3, processor.temporal_patch_size, side, side)
    patches = made["pixel_values"].numpy().reshape(shape)[:, :, :, :, :, 0]
    pixels = patches.transpose(0, 2, 5, 1, 3, 6, 4).reshape(rows * side, columns * side, 3)
    pixels = pixels * np.array(processor.image_std) + np.array(processor.image_mean)
    return (pixels * 255).clip(0, 255)


def is_red(pixels):
    return np.abs(pixels - np.array(RED)).max(axis=2) < 60


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


SMALL, LARGE = (56 * 56, 112 * 112), (112 * 112, 1003520)


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize(
    ("size", "bounds", "kind"),
    [
        ((112, 112), SMALL, "as stored, for patches of 14"),
        ((40, 30), LARGE, "enlarged"),
        ((61, 97), LARGE, "enlarged"),
        ((640, 480), SMALL, "reduced"),
        ((1500, 1000), LARGE, "reduced"),
        ((500, 61), SMALL, "reduced, wide"),
        ((37, 420), LARGE, "to whole patches, high"),
        ((100, 130), LARGE, "to whole patches"),
    ],
)
def test_a_drawn_box_is_converted_to_where_the_model_sees_it(size, bounds, kind, patch_size):
    encoder = encoder_for(*bounds, patch_size)
    width, height = size
    box = (width // 5, height // 4, width // 5 + width // 2, height // 4 + height // 3)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=RED)
    seen = picture_seen(encoder, image)
    frame = Frame(size, encoder.seen_size(image))
    assert seen.shape == (frame.seen[1], frame.seen[0], 3)
    mapped, found = frame.box(box), box_of(is_red(seen))
    # Resizing blurs an edge over a pixel or two, which is much of a very small box.
    assert max(abs(a - b) for a, b in zip(mapped, found, strict=True)) <= 1
    assert box_iou(mapped, found) > (0.9 if min(frame.seen) >= 84 else 0.75)
    x1, y1, x2, y2 = mapped
    assert is_red(seen[y1:y2, x1:x2]).mean() > 0.8
    if not frame.is_same:
        # Taken as it is stored, the box would be elsewhere.
        assert box_iou(box, found) < box_iou(mapped, found)
    # The operations' results too.
    x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    for name, arguments in (
        ("SEGMENT_OBJECT_AT", {"x": x, "y": y}),
        ("GET_PROPERTIES", {"bbox": list(box)}),
    ):
        result = execute(name, arguments, [image]).result
        asked = values_as_seen(arguments, arguments, [frame])
        told = values_as_seen(result, arguments, [frame])
        assert told["area"] == pytest.approx(is_red(seen).sum(), rel=0.15, abs=20)
        if "x" in asked:
            assert is_red(seen)[asked["y"], asked["x"]]
            assert tuple(told["bbox"]) == mapped
        else:
            assert asked["bbox"] == list(mapped)
            assert is_red(seen)[told["center"][1], told["center"][0]]


# The embedded base sees drawn scenes as they are stored


@pytest.mark.parametrize("sample_type", SAMPLE_TYPES)
@pytest.mark.parametrize("task", TASKS)
def test_an_example_seen_as_stored_is_not_changed(task, sample_type):
    encoder = encoder_for(3136, 12544)
    example = generate_example(seed=2, index=1, task=task, sample_type=sample_type)
    frames = frames_of(example.images, encoder.seen_size)
    assert as_seen(example, frames) is example
    plain = encoder.encode(example_messages(example))
    found = encode_example(example, encoder)
    assert (found.input_ids, found.labels) == (plain.input_ids, plain.labels)


# Whole examples


def numbers_in(value):
    return [int(number) for number in re.findall(r"\d+", json.dumps(value))]


def generated():
    return [
        generate_example(seed=4, index=i, task=task, sample_type=sample_type)
        for i, task in enumerate(TASKS)
        for sample_type in SAMPLE_TYPES
    ]


def test_every_box_and_point_of_every_example_is_doubled(double):
    for example in generated():
        frames = frames_of(example.images, double.seen_size)
        seen = as_seen(example, frames)
        assert seen.images is example.images
        for step, told in zip(example.trajectory, seen.trajectory, strict=True):
            assert (told.operation, told.thought) == (step.operation, step.thought)
            for name in ("bbox", "boxes"):
                for before, after in ((step.arguments, told.arguments), (step.result, told.result)):
                    if name in before:
                        expected = [2 * n for n in numbers_in(before[name])]
                        assert numbers_in(after[name]) == expected
            if "x" in step.arguments:
                expected = {"x": 2 * step.arguments["x"] + 1, "y": 2 * step.arguments["y"] + 1}
                assert told.arguments == expected
            if "area" in step.result:
                assert told.result["area"] == 4 * step.result["area"]
            if "size" in step.result:
                assert told.result["size"] == [2 * side for side in step.result["size"]]
            assert told.arguments.get("frames") == step.arguments.get("frames")
            assert told.arguments.get("factor") == step.arguments.get("factor")


def test_a_conclusion_compares_the_converted_areas(double, half):
    example = next(
        example
        for index in range(50)
        if "by area,"
        in (
            example := generate_example(
                seed=9, index=index, task="geometric_comparison", sample_type="positive"
            )
        ).conclusion
        and all("area" in step.result for step in example.trajectory)
    )
    for encoder in (double, half):
        seen = as_seen(example, frames_of(example.images, encoder.seen_size))
        assert seen.conclusion != example.conclusion
        found = [step.result["area"] for step in seen.trajectory]
        assert numbers_in(seen.conclusion) == found


def test_a_described_solution_is_converted_like_a_step(double):
    example = next(
        e for e in generated() if e.sample_type == "trap_perceptual" and " -> " in e.question
    )
    seen = as_seen(example, frames_of(example.images, double.seen_size))
    frames = frames_of(example.images, double.seen_size)
    before, after = (each.question.splitlines() for each in (example, seen))
    steps = example.provenance["flawed"]["steps"]
    told = [line for line in after if " -> " in line]
    assert len(told) == len(steps) > 0
    for line, step in zip(told, steps, strict=True):
        asked = values_as_seen(step["arguments"], step["arguments"], frames)
        result = values_as_seen(step["result"], step["arguments"], frames)
        assert line.endswith(f"{json.dumps(asked)} -> {json.dumps(result)}")
    assert [line for line in before if " -> " not in line] == [
        line for line in after if " -> " not in line
    ]


def test_an_example_is_encoded_in_seen_pixels(double):
    example = generate_example(seed=1, index=0, task="object_counting", sample_type="positive")
    seen = as_seen(example, frames_of(example.images, double.seen_size))
    assert seen != example
    assert (
        encode_example(example, double).input_ids == double.encode(example_messages(seen)).input_ids
    )


# Texts

WIDE = Frame((100, 50), (200, 100))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is in [10, 10, 20, 20]?", "What is in [20, 20, 40, 40]?"),
        ("at [10,10, 100,50] or (5, 6)", "at [20, 20, 200, 100] or (11, 13)"),
        ("[10, 10, 101, 20] is outside, as are [20, 10, 10, 20] and (100, 3)", None),
        ("call f(x, y) with 12, 13 or [1, 2] or (1, 2, 3)", None),
        ("no numbers", None),
    ],
)
def test_boxes_and_points_inside_the_image(text, expected):
    assert text_as_seen(text, WIDE) == (expected or text)
    assert text_as_seen(text, Frame((100, 50), (100, 50))) == text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "The largest by area, a: 10, b: 7, is the a.",
            "The largest by area, a: 40, b: 28, is the a.",
        ),
        (
            "The largest by box area, a: 6, b: 50, is the b.",
            "The largest by box area, a: 24, b: 200, is the b.",
        ),
        (
            "The leftmost by center x, a: 10, b: 7, is the b, so no.",
            "The leftmost by center x, a: 21, b: 15, is the b, so no.",
        ),
        ("by center y, a: 10, b: 7, is", "by center y, a: 21, b: 15, is"),
        (
            "By area, a: 10, b: 7, there: 7, in front is the b.",
            "By area, a: 40, b: 28, there: 28, in front is the b.",
        ),
        ("The leftmost by column, a: 1, b: 2, is the a.", None),  # cells, not pixels
        ("There are no more, so 3.", None),
    ],
)
def test_values_in_pixels_of_a_conclusion(said, expected):
    example = handmade(conclusion=said)
    assert as_seen(example, [WIDE]).conclusion == (expected or said)


def handmade(**changed):
    settings = {
        "id": "a",
        "task": "t",
        "sample_type": "positive",
        "question": "q",
        "images": (Image.new("RGB", (100, 50)),),
        "trajectory": (),
        "conclusion": "",
        "answer": "a",
        "ground_truth": "a",
    }
    return Example(**settings | changed)


def test_answers_and_thoughts_are_converted_and_the_ground_truth_is_not():
    step = Step("Look at [0, 0, 10, 10].", "READ_TEXT", {"bbox": [0, 0, 10, 10]}, {"text": "x"})
    example = handmade(answer="[1, 2, 3, 4]", ground_truth="[1, 2, 3, 4]", trajectory=(step,))
    seen = as_seen(example, [WIDE])
    assert seen.answer == "[2, 4, 6, 8]"
    assert seen.ground_truth == "[1, 2, 3, 4]"
    assert seen.trajectory[0].thought == "Look at [0, 0, 20, 20]."
    assert seen.trajectory[0].arguments == {"bbox": [0, 0, 20, 20]}


def test_a_box_area_is_that_of_the_mapped_box():
    frame = Frame((100, 50), (150, 75))
    step = Step("", "ZOOM_IN", {"bbox": [1, 1, 4, 4]}, {"size": [6, 6]})
    example = handmade(trajectory=(step,), conclusion="By box area, a: 9, b: 10, so.")
    seen = as_seen(example, [frame])
    assert seen.trajectory[0].arguments["bbox"] == [2, 2, 6, 6]
    assert seen.trajectory[0].result == {"size": [8, 8]}
    assert seen.conclusion == "By box area, a: 16, b: 23, so."


# What a user's records may hold


@pytest.mark.parametrize(
    "question",
    [
        "ZOOM_IN {} -> {" * 6600,
        "ZOOM_IN {} -> {" * 6600 + "}",
        'READ_TEXT {"bbox": [0, 0, 9, 9]} -> {}\n' * 3000,
        'ZOOM_IN {"a":' + "[" * 20_000 + "]" * 20_000 + "} -> {}",
        'ZOOM_IN {"a": ' + "[" * 900 + "]" * 900 + "} -> {}",
        'READ_TEXT {"a": 1} -> {"area": ' + "9" * 4300 + "}",
        'READ_TEXT {"a": 1} -> {"area": ' + "9" * 4301 + "}",
        'ZOOM_IN {"bbox": [0, 0, ' + "9" * 4300 + ', 1], "factor": 4} -> {"size": [1, 1]}',
        'GET_PROPERTIES {"mask": {"size": [50, 100], "counts": ['
        + ", ".join(["9" * 4300] * 20)
        + "]}} -> {}",
        "[ (" * 33_000,
        "[1, 2, " * 15_000,
    ],
    ids=range(11),
)
def test_no_question_takes_long_and_what_cannot_be_converted_stays(question):
    began = time.monotonic()
    seen = as_seen(handmade(question=question), [WIDE])
    assert time.monotonic() - began < 5
    if "[0, 0, 9, 9]" not in question:
        assert seen.question == question


@pytest.mark.parametrize(
    "conclusion",
    [
        "by area, " * 11_000,
        "by area, a: " * 9000 + ".",
        "by area, : 1, " * 9000,
        "by area, a: " + "9" * 5000 + ".",
        "by center x, a: " + "9" * 10**5 + ".",
        "by box area, a: " + "9" * 21 + ".",
    ],
    ids=range(6),
)
def test_no_conclusion_takes_long(conclusion):
    began = time.monotonic()
    seen = as_seen(handmade(conclusion=conclusion), [WIDE])
    assert time.monotonic() - began < 1
    assert seen.conclusion == conclusion


def test_at_most_64_lines_are_read_as_steps():
    told = 'READ_TEXT {"bbox": [0, 0, 9, 9]} -> {"center": [1, 1]}'
    lines = as_seen(handmade(question="\n".join([told] * 70)), [WIDE]).question.split("\n")
    mapped = 'READ_TEXT {"bbox": [0, 0, 18, 18]} -> {"center": [3, 3]}'
    assert lines[:MAX_DESCRIBED_STEPS] == [mapped] * 64
    # What follows is words, in which boxes alone are places.
    assert lines[MAX_DESCRIBED_STEPS:] == [mapped.replace("[3, 3]", "[1, 1]")] * 6


# Calls


def test_a_call_over_frames_uses_the_sizes_of_its_frames():
    frames = [Frame((10, 10), (10, 10)), Frame((10, 10), (20, 20)), Frame((10, 10), (30, 30))]
    stored = {"frames": [2, 3], "bbox": [1, 1, 3, 3]}
    asked = values_as_seen(stored, stored, frames)
    assert asked == {"frames": [2, 3], "bbox": [2, 2, 6, 6]}
    assert call_as_stored("TRACK_OBJECT", asked, frames) == stored
    result = {"boxes": [[1, 1, 3, 3], [2, 2, 4, 4]]}
    assert values_as_seen(result, stored, frames) == {"boxes": [[2, 2, 6, 6], [6, 6, 12, 12]]}


def test_a_mask_is_resized():
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:20, 30:60] = True
    stored = {"mask": encode_mask(mask)}
    asked = values_as_seen(stored, stored, [WIDE])
    seen = decode_mask(asked["mask"], (200, 100))
    assert seen.sum() == 4 * mask.sum() and seen[20:40, 60:120].all()
    assert call_as_stored("GET_PROPERTIES", asked, [WIDE]) == stored


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("READ_TEXT", {"bbox": [0, 0, 201, 10]}, "0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 100"),
        ("SEGMENT_OBJECT_AT", {"x": 200, "y": 3}, "0 <= x < 200 and 0 <= y < 100"),
        ("GET_PROPERTIES", {"mask": {"size": [50, 100], "counts": [5000]}}, r"= \[100, 200\]"),
    ],
)
def test_a_call_outside_the_image_is_refused_in_seen_pixels_and_stays_in_data(
    operation, arguments, message
):
    with pytest.raises(OperationError, match=message):
        call_as_stored(operation, arguments, [WIDE])
    inside = [WIDE.inverse]
    assert values_as_seen(arguments, arguments, inside) == arguments


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("FLY", {"bbox": [0, 0, 2, 2]}),
        (None, {"bbox": [0, 0, 2, 2]}),
        ("READ_TEXT", None),
        ("READ_TEXT", [0, 0, 2, 2]),
        ("READ_TEXT", {}),
        ("READ_TEXT", {"bbox": [0, 0, 2, 2], "more": 1}),
        ("TRACK_OBJECT", {"frames": [1, 9], "bbox": [0, 0, 2, 2]}),
        ("TRACK_OBJECT", {"frames": "1, 2", "bbox": [0, 0, 2, 2]}),
    ],
)
def test_an_invalid_call_is_left_to_the_operation(operation, arguments):
    assert call_as_stored(operation, arguments, [WIDE]) == arguments


def test_an_error_repeats_the_converted_arguments():
    step = Step("", "SEGMENT_OBJECT_AT", {"x": 5, "y": 6}, {"error": "no object at (5, 6)"})
    box = Step("", "READ_TEXT", {"bbox": [1, 2, 3, 4]}, {"error": "no text in [1, 2, 3, 4]; get"})
    seen = as_seen(handmade(trajectory=(step, box)), [WIDE])
    assert [told.result["error"] for told in seen.trajectory] == [
        "no object at (11, 13)",
        "no text in [2, 4, 6, 8]; get",
    ]


@pytest.mark.parametrize("numbers", [{"bbox": [0, 0, 1, 10**4299]}, {"area": 9 * 10**4299}])
def test_numbers_too_large_for_an_image_stay(numbers):
    step = Step("", "READ_TEXT", numbers, numbers)
    (seen,) = as_seen(handmade(trajectory=(step,)), [WIDE]).trajectory
    assert (seen.arguments, seen.result) == (numbers, numbers)


def test_other_results_and_arguments_stay():
    result = {
        "text": "at (1, 2)",
        "boxes": [[0, 0, 1, 1]],
        "bbox": "none",
        "center": [1.5, 2],
        "area": None,
    }
    assert values_as_seen(result, {}, [WIDE]) == result
    step = Step("", "FLY", {"to": 3}, {"found": [1, 2]})
    seen = as_seen(handmade(trajectory=(step,)), [WIDE])
    assert seen.trajectory == (replace(step, arguments={"to": 3}),)


# One frame

SIDES = st.integers(1, 3000)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def boxes(draw, size):
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
        for side in size
    )
    return x1, y1, x2, y2


@st.composite
def frames_with_regions(draw):
    frame = Frame(draw(SIZES), draw(SIZES))
    point = tuple(draw(st.integers(0, side - 1)) for side in frame.stored)
    return frame, draw(boxes(frame.stored)), point


@given(frames_with_regions())
def test_what_lies_inside_stays_inside(drawn):
    frame, box, point = drawn
    x1, y1, x2, y2 = frame.box(box)
    assert 0 <= x1 < x2 <= frame.seen[0] and 0 <= y1 < y2 <= frame.seen[1]
    x, y = frame.point(*point)
    assert 0 <= x < frame.seen[0] and 0 <= y < frame.seen[1]


@given(frames_with_regions())
def test_there_and_back_is_the_nearest_stored_pixel(drawn):
    frame, box, point = drawn
    for before, after in (
        (box, frame.inverse.box(frame.box(box))),
        (point, frame.inverse.point(*frame.point(*point))),
    ):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            stored, seen = frame.stored[index % 2], frame.seen[index % 2]
            if seen >= stored:
                assert one == other
            else:  # half a seen pixel, and the pixel that a box keeps
                assert abs(one - other) <= 1.5 * stored / seen + 1


@given(frames_with_regions())
def test_a_coordinate_keeps_its_share_of_the_side(drawn):
    frame, box, point = drawn
    for index, (value, found) in enumerate(zip(box, frame.box(box), strict=True)):
        stored, seen = frame.stored[index % 2], frame.seen[index % 2]
        assert abs(value / stored - found / seen) <= 1 / seen + 1e-9
    for index, (value, found) in enumerate(zip(point, frame.point(*point), strict=True)):
        centre, seen = (value + 0.5) / frame.stored[index], frame.seen[index]
        assert found / seen <= centre < (found + 1) / seen + 1e-9


@pytest.mark.parametrize(
    ("stored", "seen", "box", "expected"),
    [
        ((100, 50), (200, 50), (10, 10, 20, 20), (20, 10, 40, 20)),  # one side alone
        ((100, 100), (50, 50), (1, 1, 4, 4), (1, 1, 2, 2)),  # halves up
        ((100, 100), (10, 10), (41, 41, 43, 43), (4, 4, 5, 5)),  # at least a pixel
        ((100, 100), (10, 10), (99, 99, 100, 100), (9, 9, 10, 10)),  # also at the end
    ],
)
def test_edges_go_to_the_nearest_edge(stored, seen, box, expected):
    assert Frame(stored, seen).box(box) == expected


def test_points_and_areas():
    half, double = Frame((100, 100), (50, 50)), Frame((100, 100), (200, 200))
    assert [half.point(x, 0)[0] for x in (0, 1, 2, 3)] == [0, 0, 1, 1]
    assert [double.point(x, 0)[0] for x in (0, 1, 99)] == [1, 3, 199]
    assert [half.area(value) for value in (0, 1, 2, 100)] == [0, 1, 1, 25]
    assert double.area(7) == 28
