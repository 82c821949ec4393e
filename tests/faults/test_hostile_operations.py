"""What a model can do with operations: nothing but look at its own images, within bounds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from pixelis.data.chat import MAX_CALL_DEPTH, parse_reply
from pixelis.operations import OPERATIONS, execute
from pixelis.operations.track_object import TRACK_OBJECT
from tests.evaluation.handmade import make_example, run_script
from tests.faults.hostile import KEYS, bounded, deep, run_cases, values
from tests.faults.pictures import drawn

ROOT = Path(__file__).parent.parent.parent
IMAGES = (drawn(), drawn(colour="blue"))
MAX_RESULT = 2000  # characters of what goes back into the conversation


def in_a_child(module, *words):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_no_file_process_or_network_is_reached():
    told = in_a_child("sandboxed_calls", "0", "1500")
    assert told["seen"] == []
    # Both kinds of call were made.
    assert 300 < told["refused"] < 1300


def test_the_watch_sees_a_file_that_is_opened():
    (seen,) = in_a_child("sandboxed_calls", "1", "5", "break")["seen"]
    assert seen.startswith("open ('/etc/hostname'")


def check_observation(observation):
    text = json.dumps(observation.result, allow_nan=False)
    assert len(text) <= MAX_RESULT
    assert observation.image is None or max(observation.image.size) <= 2048
    assert observation.is_error == bool(observation.problem)


def calls():
    names = st.sampled_from(list(OPERATIONS)) | st.sampled_from(("os.system", "", "zoom_in"))
    value = values(finite=True)
    boxes = st.lists(st.integers(-2, 70), min_size=4, max_size=4)
    right = st.fixed_dictionaries(
        {},
        optional={
            "bbox": boxes | value,
            "factor": st.integers(-1, 6) | value,
            "x": st.integers(-2, 70) | value,
            "y": st.integers(-2, 70) | value,
            "frames": st.lists(st.integers(0, 3), max_size=3) | value,
            "mask": value,
        },
    )
    wrong = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), value, max_size=4)
    return st.tuples(names | value, right | wrong | value)


def test_any_call_gives_a_small_result():
    def check(case):
        name, arguments = case
        before = [image.tobytes() for image in IMAGES]
        try:
            text = json.dumps({"name": name, "arguments": arguments})
        except RecursionError:
            return
        reply = parse_reply(f"<tool_call>{text}</tool_call>")
        if reply.error:
            assert len(reply.error) < 200
            return
        check_observation(execute(reply.operation, reply.arguments, IMAGES))
        assert [image.tobytes() for image in IMAGES] == before

    run_cases("calls", calls(), check)


def test_arguments_that_no_schema_names_are_refused():
    for name, operation in OPERATIONS.items():
        for extra in ("path", "command", "__class__", "image", "self"):
            given = dict.fromkeys([*operation.parameters, extra], 1)
            observation = execute(name, given, IMAGES)
            assert (
                observation.is_error
                and extra in str(observation.result)
                or "got" in str(observation.result)
            )


@pytest.mark.parametrize(
    ("bbox", "factor"), [([0, 0, 3000, 3000], 1), ([0, 0, 1000, 9], 4), ([0, 0, 3000, 1], 4)]
)
def test_a_zoom_is_bounded_in_pixels(bbox, factor):
    observation = execute(
        "ZOOM_IN", {"bbox": bbox, "factor": factor}, [Image.new("RGB", (3000, 3000))]
    )
    assert "must be at most 2048 pixels a side" in observation.result["error"]


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "READ_TEXT", "arguments": ' + "[" * 900 + "]" * 900 + "}",
        '{"name": "READ_TEXT", "arguments": {"bbox": ' + "[" * 40 + "]" * 40 + "}}",
        '{"name": ' + '{"a": ' * 100 + "1" + "}" * 100 + ', "arguments": {}}',
    ],
)
def test_a_call_nested_without_end_is_an_error_like_others(encoder, call):
    assert parse_reply(f"<tool_call>{call}</tool_call>").error == (
        f"a call may be nested {MAX_CALL_DEPTH} deep"
    )
    lines = [f"<tool_call>{call}</tool_call>"] * 3 + ["<answer>red</answer>"]
    rollout, _ = run_script(encoder, make_example(), *lines)
    assert rollout.answer == "red" and rollout.failures == {"malformed_call": 3}


def test_as_many_operations_as_are_allowed(encoder):
    call = '<tool_call>{"name": "SEGMENT_OBJECT_AT", "arguments": {"x": 1, "y": 1}}</tool_call>'
    rollout, _ = run_script(encoder, make_example(), *[call] * 50, max_operations=4)
    assert rollout.num_operations == 4 and rollout.outcome == "max_operations"


def noise(width, height):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.faults
def test_the_largest_images_are_bounded_in_memory_and_time():
    told = in_a_child("large_calls")
    assert {name for name, *_ in told["calls"]} == set(OPERATIONS)
    for name, seconds, length, side in told["calls"]:
        assert seconds < 60 and length <= MAX_RESULT and side <= 2048, name
    assert told["bytes"] < 2 << 30


def test_a_large_frame_is_searched_in_bands_to_the_same_end():
    pixels = noise(2400, 1000)
    frames = [Image.fromarray(pixels), Image.fromarray(np.roll(pixels, (9, 700), axis=(0, 1)))]
    for box in ([100, 100, 120, 118], [100, 100, 112, 900]):
        x1, y1, x2, y2 = box
        with bounded():
            observation = TRACK_OBJECT.run(frames, {"frames": [1, 2], "bbox": box})
        assert observation.result["boxes"] == [box, [x1 + 700, y1 + 9, x2 + 700, y2 + 9]]


def test_deep_is_what_it_says():
    assert json.dumps(deep(3)) == "[[[1]]]"
