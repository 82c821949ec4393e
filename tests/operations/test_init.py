import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelis.operations import OPERATIONS, execute, tool_schemas

NAMES = ("ZOOM_IN", "SEGMENT_OBJECT_AT", "READ_TEXT", "GET_PROPERTIES", "TRACK_OBJECT")
WHITE = Image.new("RGB", (40, 30), (255, 255, 255))
GOOD = {
    "ZOOM_IN": {"bbox": [0, 0, 10, 10], "factor": 2},
    "SEGMENT_OBJECT_AT": {"x": 5, "y": 5},
    "READ_TEXT": {"bbox": [0, 0, 10, 10]},
    "GET_PROPERTIES": {"bbox": [0, 0, 10, 10]},
    "TRACK_OBJECT": {"frames": [1, 2], "bbox": [0, 0, 10, 10]},
}
# Every error that an operation may give, each with the rule and what was given.
ERRORS = re.compile(
    r"unknown operation .*; choices: ZOOM_IN, .*"
    r"|arguments must be an object, got .*"
    r"|[A-Z_]+ takes .*; got .*"
    r"|bbox must (be four integers|satisfy 0 <= x1 < x2 <= |fit into every frame).*"
    r"|factor must be an integer in \[1, 4\], got .*"
    r"|x and y must be integers with .*, got x=.*, y=.*"
    r"|mask must .*, got .*"
    r"|frames must be at least 2 strictly ascending integers in \[1, \d\], got .*"
    r"|TRACK_OBJECT needs at least 2 images, got 1"
    r"|no object (in \[\d.*\]( of frame \d)?|at \(\d+, \d+\))"
    r"|no text in \[\d+, \d+, \d+, \d+\](; to read photographs, .*)?"
    r"|the object of \[\d.*\] is not found in frame \d",
    re.DOTALL,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
# Arguments that name just what an operation takes, so that their values are looked at.
NUMBERS = st.integers(-3, 60)
SPAN = st.lists(st.integers(0, 30), min_size=2, max_size=2, unique=True).map(sorted)
INSIDE = st.tuples(SPAN, SPAN).map(lambda spans: [spans[i][j] for j in (0, 1) for i in (0, 1)])
BOX = INSIDE | st.lists(NUMBERS, min_size=4, max_size=4)
NEAR = st.one_of(
    *(
        st.tuples(st.just(name), st.fixed_dictionaries(values))
        for name, values in (
            ("ZOOM_IN", {"bbox": BOX, "factor": st.integers(-1, 6)}),
            ("SEGMENT_OBJECT_AT", {"x": NUMBERS, "y": NUMBERS}),
            ("READ_TEXT", {"bbox": BOX}),
            ("GET_PROPERTIES", {"bbox": BOX}),
            ("GET_PROPERTIES", {"mask": JSON}),
            ("TRACK_OBJECT", {"bbox": BOX, "frames": st.sampled_from([[1, 2], [2, 3]])}),
            *((name, {key: JSON for key in GOOD[name]}) for name in NAMES),
        )
    )
)
CALLS = NEAR | st.tuples(st.sampled_from(NAMES) | st.text(max_size=60), JSON)


def kinds_of(value):
    """Types of the leaves of a result."""
    if isinstance(value, dict):
        return {kind for inner in value.values() for kind in kinds_of(inner)}
    if isinstance(value, list):
        return {kind for inner in value for kind in kinds_of(inner)}
    return {type(value)}


@st.composite
def noisy_images(draw):
    """Noise of any size and mode: nothing that scenes look like."""
    width, height = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(draw(st.sampled_from(["RGB", "RGBA", "L", "P", "1"])))


def error_of(name, arguments, image=WHITE):
    observation = execute(name, arguments, [image])
    assert observation.is_error and observation.image is None
    assert set(observation.result) == {"error"}
    return observation.result["error"]


@settings(max_examples=300, deadline=None)
@given(call=CALLS, images=st.lists(noisy_images(), min_size=1, max_size=3))
def test_nothing_that_json_can_say_makes_an_operation_raise(call, images):
    name, arguments = call
    observation = execute(name, arguments, images)
    text = json.dumps(observation.result, allow_nan=False)
    assert len(text) < 500, "an observation goes back into the conversation"
    assert kinds_of(observation.result) <= {int, str}
    assert observation.is_error == (set(observation.result) == {"error"})
    if observation.is_error:
        assert ERRORS.fullmatch(observation.result["error"])
    else:
        assert set(arguments) <= set(OPERATIONS[name].parameters)


@settings(max_examples=100, deadline=None)
@given(call=NEAR, images=st.lists(noisy_images(), min_size=1, max_size=3))
def test_the_same_call_gives_the_same_observation_and_leaves_its_inputs_alone(call, images):
    name, arguments = call
    before = [image.tobytes() for image in images], json.dumps(arguments)
    first, second = (execute(name, arguments, images) for _ in range(2))
    assert first.result == second.result
    assert (first.image is None) == (second.image is None)
    if first.image is not None:
        assert first.image.tobytes() == second.image.tobytes()
    assert ([image.tobytes() for image in images], json.dumps(arguments)) == before


@pytest.mark.parametrize("name", NAMES[:-1])
def test_coordinates_are_of_the_first_image(name):
    alone = execute(name, GOOD[name], [WHITE])
    beside_another = execute(name, GOOD[name], [WHITE, Image.new("RGB", (3, 3))])
    assert alone.result == beside_another.result


def test_an_unknown_operation_lists_what_exists():
    error = error_of("ZOOM", GOOD["ZOOM_IN"])
    assert error == f"unknown operation 'ZOOM'; choices: {', '.join(NAMES)}"
    assert len(error_of("Z" * 10_000, {})) < 200


@pytest.mark.parametrize("arguments", [None, True, 3, 2.5, "bbox", [0, 0, 1, 1], []])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_are_no_object(name, arguments):
    assert error_of(name, arguments) == f"arguments must be an object, got {arguments!r}"


@pytest.mark.parametrize(
    ("name", "arguments", "got"),
    [
        ("ZOOM_IN", {}, "none"),
        ("ZOOM_IN", {"factor": 2}, "factor"),
        ("READ_TEXT", {"box": [0, 0, 9, 9]}, "box"),
        ("SEGMENT_OBJECT_AT", {"x": 1}, "x"),
        ("SEGMENT_OBJECT_AT", {"bbox": [0, 0, 9, 9]}, "bbox"),
        ("GET_PROPERTIES", {}, "none"),
        ("GET_PROPERTIES", {"bbox": [0, 0, 9, 9], "mask": None}, "bbox, mask"),
        ("TRACK_OBJECT", {"frames": [1, 2]}, "frames"),
        # An extra argument is not ignored.
        *(
            (name, GOOD[name] | {"mode": "fast"}, ", ".join([*GOOD[name], "mode"]))
            for name in NAMES
        ),
    ],
)
def test_lacking_and_wrong_arguments_name_what_is_taken(name, arguments, got):
    taken = {
        "ZOOM_IN": "bbox, factor",
        "READ_TEXT": "bbox",
        "SEGMENT_OBJECT_AT": "x, y",
        "GET_PROPERTIES": "exactly one of bbox, mask",
        "TRACK_OBJECT": "frames, bbox",
    }
    assert error_of(name, arguments) == f"{name} takes {taken[name]}; got {got}"


@pytest.mark.parametrize(
    ("name", "outside", "message"),
    [
        ("ZOOM_IN", {"bbox": [0, 0, 41, 9]}, "bbox must satisfy 0 <= x1 < x2 <= 40 and 0 <= y1"),
        ("SEGMENT_OBJECT_AT", {"x": 40}, "x and y must be integers with 0 <= x < 40"),
        ("READ_TEXT", {"bbox": [0, 0, 9.0, 9]}, "bbox must be four integers [x1, y1, x2, y2], got"),
        ("GET_PROPERTIES", {"bbox": [0, 0, 9, 31]}, "bbox must satisfy 0 <= x1 < x2 <= 40 and 0"),
        ("TRACK_OBJECT", {"bbox": [0, 0, 41, 9]}, "bbox must satisfy 0 <= x1 < x2 <= 40 and 0 <="),
    ],
)
def test_every_operation_checks_its_coordinates(name, outside, message):
    result = execute(name, GOOD[name] | outside, [WHITE, WHITE]).result
    assert result["error"].startswith(message)


@pytest.mark.parametrize("name", NAMES)
def test_the_tool_schema_is_a_json_schema_of_an_object(name):
    (schema,) = [s for s in tool_schemas() if s["function"]["name"] == name]
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "function" and set(schema) == {"type", "function"}
    function = schema["function"]
    assert set(function) == {"name", "description", "parameters"}
    assert function["description"].endswith(".")
    parameters = function["parameters"]
    assert parameters["type"] == "object"
    assert set(parameters["required"]) <= set(parameters["properties"])
    for value in parameters["properties"].values():
        assert value["type"] in ("integer", "array", "object")
        assert ("properties" in value) == (value["type"] == "object")
        assert ("items" in value) == (value["type"] == "array")
    # What the schema requires is what the call cannot do without.
    for required in parameters["required"]:
        lacking = {key: value for key, value in GOOD[name].items() if key != required}
        assert f"{name} takes" in error_of(name, lacking)
    needed = {key: GOOD[name][key] for key in parameters["required"] or ["bbox"]}
    assert not execute(name, needed, [WHITE]).result.get("error", "").startswith(f"{name} takes")


def test_signatures_and_schemas_come_in_table_order():
    assert [schema["function"]["name"] for schema in tool_schemas()] == list(OPERATIONS)
    # A signature names only the first of several alternatives.
    assert [operation.signature for operation in OPERATIONS.values()] == [
        "ZOOM_IN(bbox, factor)",
        "SEGMENT_OBJECT_AT(x, y)",
        "READ_TEXT(bbox)",
        "GET_PROPERTIES(bbox)",
        "TRACK_OBJECT(frames, bbox)",
    ]
