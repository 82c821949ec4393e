"""Calls of other tools: public forms, units of boxes, and what stays unmapped."""

import json

import pytest
from PIL import Image

from pixelis.config import DataPrepConfig, load_config
from pixelis.data_prep.importing import Record, RejectedError, check_tools, convert
from pixelis.errors import ConfigError


def tools_of(value):
    return load_config(DataPrepConfig, None, {"import.tools": value}).tools


def zoom(unit="pixels", **others):
    return tools_of(
        {"zoom": {"operation": "ZOOM_IN", "arguments": {"box": "bbox"}, "unit": unit, **others}}
    )


def tagged(name, arguments, thought="I zoom in."):
    call = json.dumps({"name": name, "arguments": arguments})
    return f"{thought}\n<tool_call>\n{call}\n</tool_call>"


def called(name, arguments, image="c.jpg", **step):
    """A CoTA record with one call; c.jpg has 64 x 48 pixels."""
    steps = [{"tool": name, "args": arguments, **step}]
    return {"question": "What?", "image": image, "trajectory": steps, "answer": "A ball."}


# The forms of public data


def pixel_reasoner(arguments):
    def turn(role, text, *images):
        parts = [{"type": "image", "image": image} for image in images]
        return {"role": role, "content": [{"type": "text", "text": text}, *parts]}

    return {
        "qid": "train-1",
        "message_list": [
            turn("system", "You are a helpful assistant.\n\n# Tools\n"),
            turn("user", "What is it?", "c.jpg"),
            turn("assistant", tagged("crop_image_normalized", arguments)),
            turn("user", "\nHere is the cropped image (Image Size: 16x24):", "crop.png"),
            turn("assistant", "It is a ball."),
        ],
    }


def deepeyes(arguments):
    return {
        "messages": [
            {"role": "user", "content": "<image>\nWhat is it?"},
            {"role": "assistant", "content": tagged("image_zoom_in_tool", arguments)},
            {"role": "user", "content": "<tool_response><image></tool_response>"},
            {"role": "assistant", "content": "<answer>It is a ball.</answer>"},
        ],
        "images": ["c.jpg", "crop.png"],
    }


def qwen(arguments):
    call = {"name": "image_zoom_in_tool", "arguments": json.dumps(arguments)}
    result = {"role": "function", "name": call["name"], "content": [{"image": "crop.png"}]}
    return {
        "messages": [
            {"role": "user", "content": [{"image": "c.jpg"}, {"text": "What is it?"}]},
            {"role": "assistant", "content": "I zoom in."},
            {"role": "assistant", "content": "", "function_call": call},
            result,
            {"role": "assistant", "content": "It is a ball."},
        ]
    }


PUBLIC = [
    ("pixel_reasoner", pixel_reasoner, {"bbox_2d": [0.25, 0.25, 0.5, 0.75], "target_image": 1}),
    ("deepeyes", deepeyes, {"bbox_2d": [16, 12, 32, 36], "label": "the ball"}),
    ("deepeyes", deepeyes, {"bbox": [16.0, 12.0, 32.0, 36.0], "image_path": "c.jpg"}),
    ("qwen", qwen, {"bbox_2d": [250, 250, 500, 750], "label": "the ball", "img_idx": 0}),
]


@pytest.mark.parametrize(("profile", "write", "arguments"), PUBLIC)
def test_a_public_trajectory_becomes_a_zoom_of_ours(take, folder, profile, write, arguments):
    with Image.open(folder / "c.jpg") as image:
        image.crop((16, 12, 32, 36)).save(folder / "crop.png")
    (example,) = take(write(arguments), "messages", tools=tools_of(profile))
    assert (example.question, example.answer) == ("What is it?", "It is a ball.")
    (step,) = example.trajectory
    assert (step.thought, step.operation) == ("I zoom in.", "ZOOM_IN")
    assert step.arguments == {"bbox": [16, 12, 32, 36], "factor": 1}
    assert step.image.size == (16, 24) and len(example.images) == 1
    text = {"text": "Here is the cropped image (Image Size: 16x24):"}
    assert step.result == (text if profile == "pixel_reasoner" else {"size": [16, 24]})
    assert example.provenance["replays"] == ["replayed"]


def test_several_calls_in_a_turn_get_their_images_in_order(take, folder):
    with Image.open(folder / "c.jpg") as image:
        for number, box in enumerate(((0, 0, 9, 9), (10, 10, 30, 20))):
            image.crop(box).save(folder / f"{number}.png")
    boxes = [0, 0, 9, 9], [10, 10, 30, 20]
    calls = [tagged("image_zoom_in_tool", {"bbox_2d": box}, "") for box in boxes]
    shown = "<tool_response><image></tool_response>"
    turns = [("user", "<image>What?"), ("assistant", "Both." + "".join(calls)), ("user", shown * 2)]
    data = {
        "messages": [
            *({"role": role, "content": text} for role, text in turns),
            {"role": "assistant", "content": "A."},
        ],
        "images": ["c.jpg", "0.png", "1.png"],
    }
    (example,) = take(data, "messages", tools=tools_of("deepeyes"))
    assert [step.image.size for step in example.trajectory] == [(9, 9), (20, 10)]
    assert example.provenance["replays"] == ["replayed", "replayed"]


# Units


@pytest.mark.parametrize(
    ("unit", "given", "bbox"),
    [
        ("pixels", [10, 20, 40, 45], [10, 20, 40, 45]),
        ("pixels", [10.4, 20.0, 39.2, 44.9], [10, 20, 40, 45]),
        ("pixels", [0, 0, 64, 48], [0, 0, 64, 48]),
        ("fractions", [0, 0, 1, 1], [0, 0, 64, 48]),
        ("fractions", [0.1, 0.1, 0.3, 0.5], [6, 4, 20, 24]),
        ("fractions", [0.25, 0.25, 0.5, 0.75], [16, 12, 32, 36]),
        ("thousandths", [0, 0, 1000, 1000], [0, 0, 64, 48]),
        ("thousandths", [250, 250, 500, 750], [16, 12, 32, 36]),
        ("thousandths", [500, 500, 501, 501], [32, 24, 33, 25]),
    ],
)
def test_boxes_become_whole_pixels_of_the_image(take, unit, given, bbox):
    (example,) = take(called("zoom", {"box": given}), "cota", tools=zoom(unit))
    assert example.trajectory[0].arguments == {"bbox": bbox}


@pytest.mark.parametrize(
    ("unit", "given"),
    [("pixels", [20, 20]), ("fractions", [0.32, 0.42]), ("thousandths", [320, 420])],
)
def test_points_become_whole_pixels_too(take, unit, given):
    arguments = {"left": "x", "top": "y", "what": None}
    tool = {"operation": "SEGMENT_OBJECT_AT", "arguments": arguments, "unit": unit}
    data = called("find", {"left": given[0], "top": given[1], "what": "the ball"})
    (example,) = take(data, "cota", tools=tools_of({"find": tool}))
    (step,) = example.trajectory
    assert (step.operation, step.arguments) == ("SEGMENT_OBJECT_AT", {"x": 20, "y": 20})
    assert "bbox" in step.result


@pytest.mark.parametrize(
    ("unit", "given", "hint"),
    [
        ("pixels", [100, 200, 700, 500], "thousandths would fit"),
        ("pixels", [0.1, 0.2, 0.5, 0.6], "fractions would fit"),
        ("pixels", [0, 0, 1, 1], "fractions would fit"),
        ("fractions", [100, 200, 700, 500], "thousandths would fit"),
        ("fractions", [10, 20, 40, 45], "pixels or thousandths would fit"),
        ("thousandths", [0.1, 0.2, 1.0, 1.0], "fractions would fit"),
        ("thousandths", [0, 0, 1200, 900], "no unit fits"),
        ("pixels", [40, 20, 10, 45], "no unit fits"),
        ("pixels", [-1, 0, 10, 10], "no unit fits"),
    ],
)
@pytest.mark.parametrize("brought", [{}, {"image": "c.jpg"}])
def test_a_box_outside_its_image_is_said_with_the_unit_that_fits(
    folder, unit, given, hint, brought
):
    record = Record("some.jsonl", 1, called("zoom", {"box": given}, **brought))
    with pytest.raises(RejectedError) as caught:
        convert(record, folder=folder, record_format="cota", tools=zoom(unit))
    assert caught.value.reason == "outside_image"
    assert caught.value.detail == (
        f"box of zoom {given} is empty or outside its image of 64 x 48 in {unit}; {hint}"
    )
    assert caught.value.told == f"box of zoom is empty or outside its image in {unit}; {hint}"


@pytest.mark.parametrize("given", [[1, 2, 3], "0 0 9 9", [1, 2, 3, True], {"x": 1}, 5])
def test_what_is_no_box(refuse, given):
    reason, text = refuse(called("zoom", {"box": given}), "cota", tools=zoom())
    assert reason == "broken_call" and text.startswith("box of zoom must be 4 numbers, got ")


# What is mapped, and what is not


def test_our_operations_stay_beside_the_mapped_tools(take):
    data = called("ZOOM_IN", {"bbox": [0, 0, 10, 5]})
    data["trajectory"].append({"tool": "zoom", "args": {"box": [0, 0, 1, 1], "factor": 3}})
    (example,) = take(data, "cota", tools=zoom("fractions", fixed={"factor": 1}))
    first, second = example.trajectory
    assert (first.arguments, first.image.size) == ({"bbox": [0, 0, 10, 5]}, (20, 10))
    assert second.arguments == {"bbox": [0, 0, 64, 48], "factor": 3}


def test_a_call_without_an_image(refuse):
    reason, text = refuse(called("zoom", {"box": [0, 0, 9, 9]}, image=None), "cota", tools=zoom())
    assert (reason, text) == ("no_image", "a call of zoom needs an image")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("image_rotate_tool", "tool 'image_rotate_tool' is not mapped"),
        ("crop_image", "tool 'crop_image' is not mapped; import.tools=pixel_reasoner would map it"),
        (
            "image_zoom_in_tool",
            "tool 'image_zoom_in_tool' is not mapped; import.tools=deepeyes or qwen would map it",
        ),
    ],
)
def test_an_unmapped_tool_is_told(folder, name, told):
    record = Record("some.jsonl", 1, called(name, {"angle": 90}))
    with pytest.raises(RejectedError, match=rf"operation '{name}'; choices: ZOOM_IN, ") as caught:
        convert(record, folder=folder, record_format="cota", tools=zoom())
    assert (caught.value.reason, caught.value.told) == ("unknown_operation", told)


@pytest.mark.parametrize(
    ("profile", "arguments", "text", "told"),
    [
        (
            "pixel_reasoner",
            {"bbox_2d": [0, 0, 1, 1], "target_image": 2},
            "crop_image with target_image 2 is not mapped, only with 1",
            "tool 'crop_image' is mapped with target_image 1 only",
        ),
        (
            {"crop_image": {"operation": "ZOOM_IN"}},
            {"bbox": [0, 0, 9, 9], "padding": 3},
            "the argument 'padding' of crop_image is not mapped; ZOOM_IN takes bbox, factor",
            "argument 'padding' of tool 'crop_image' is not mapped",
        ),
    ],
)
def test_an_argument_that_is_not_mapped_is_told(folder, profile, arguments, text, told):
    record = Record("some.jsonl", 1, called("crop_image", arguments))
    with pytest.raises(RejectedError) as caught:
        convert(record, folder=folder, record_format="cota", tools=tools_of(profile))
    assert (caught.value.reason, caught.value.detail) == ("unknown_operation", text)
    assert caught.value.told == told


def test_two_arguments_for_one(refuse):
    data = called("zoom", {"box": [0, 0, 9, 9], "bbox": [0, 0, 8, 8]})
    assert refuse(data, "cota", tools=zoom()) == ("broken_call", "zoom gives box and bbox")


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (
            {"operation": "ZOOM"},
            "^import.tools.t.operation must be one of ZOOM_IN, .*, got 'ZOOM' .did you mean 'ZOOM_",
        ),
        (
            {"operation": "ZOOM_IN", "arguments": {"box": "box"}},
            "^import.tools.t must name arguments of ZOOM_IN, which takes bbox, factor, got 'box' ",
        ),
        ({"operation": "READ_TEXT", "fixed": {"factor": 1}}, "which takes bbox, got 'factor'$"),
    ],
)
def test_a_mapping_to_what_we_do_not_have(tool, message):
    with pytest.raises(ConfigError, match=message):
        check_tools(tools_of({"t": tool}))
