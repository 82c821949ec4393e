import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelis.operations import OPERATIONS, execute, tool_schemas

NAMES = ("ZOOM_IN", "SEGMENT_OBJECT_AT", "READ_TEXT", "GET_PROPERTIES")
WHITE = Image.new("RGB", (40, 30), (255, 255, 255))
GOOD = {
    "ZOOM_IN": {"bbox": [0, 0, 10, 10], "factor": 2},
    "SEGMENT_OBJECT_AT": {"x": 5, "y": 5},
    "READ_TEXT": {"bbox": [0, 0, 10, 10]},
    "GET_PROPERTIES": {"bbox": [0, 0, 10, 10]},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NUMBERS = st.integers(-3, 60)
# Calls that come close to the rules, so that both sides of each are met.
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "bbox": st.lists(NUMBERS, min_size=4, max_size=4) | JSON,
        "factor": st.integers(-1, 6) | JSON,
        "x": NUMBERS | JSON,
        "y": NUMBERS | JSON,
        "extra": JSON,
    },
)


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


def test_the_table_goes_by_the_operations_own_names():
    assert tuple(OPERATIONS) == NAMES
    assert [operation.name for operation in OPERATIONS.values()] == list(NAMES)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(NAMES) | st.text(max_size=60),
    arguments=JSON | NEAR,
    image=noisy_images(),
)
def test_nothing_that_json_can_say_makes_an_operation_raise(name, arguments, image):
    observation = execute(name, arguments, [image])
    text = json.dumps(observation.result, allow_nan=False)
    assert len(text) < 500, "an observation goes back into the conversation"
    assert observation.is_error == (set(observation.result) == {"error"})
    if not observation.is_error:
        assert set(arguments) <= set(OPERATIONS[name].parameters)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), arguments=NEAR, image=noisy_images())
def test_the_same_call_gives_the_same_observation_and_leaves_the_image_alone(
    name, arguments, image
):
    before = image.tobytes()
    first, second = (execute(name, arguments, [image]) for _ in range(2))
    assert first.result == second.result
    assert (first.image is None) == (second.image is None)
    if first.image is not None:
        assert first.image.tobytes() == second.image.tobytes()
    assert image.tobytes() == before


@pytest.mark.parametrize("name", NAMES)
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
    ("name", "arguments", "message"),
    [
        ("ZOOM_IN", {}, "ZOOM_IN takes bbox, factor; got none"),
        ("ZOOM_IN", {"factor": 2}, "ZOOM_IN takes bbox, factor; got factor"),
        ("READ_TEXT", {"box": [0, 0, 9, 9]}, "READ_TEXT takes bbox; got box"),
        ("SEGMENT_OBJECT_AT", {"x": 1}, "SEGMENT_OBJECT_AT takes x, y; got x"),
        ("SEGMENT_OBJECT_AT", {"bbox": [0, 0, 9, 9]}, "SEGMENT_OBJECT_AT takes x, y; got bbox"),
    ],
)
def test_lacking_and_wrong_arguments_name_what_is_taken(name, arguments, message):
    assert error_of(name, arguments) == message


@pytest.mark.parametrize("name", NAMES)
def test_an_extra_argument_is_refused_not_ignored(name):
    arguments = GOOD[name] | {"mode": "fast"}
    taken = ", ".join(OPERATIONS[name].parameters)
    assert error_of(name, arguments) == f"{name} takes {taken}; got {', '.join(arguments)}"


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
        assert value["type"] in ("integer", "array")
        assert ("items" in value) == (value["type"] == "array")
    # What the schema requires is what the call cannot do without.
    for required in parameters["required"]:
        assert f"{name} takes" in error_of(
            name, {key: value for key, value in GOOD[name].items() if key != required}
        )
    needed = {key: GOOD[name][key] for key in parameters["required"]}
    assert not execute(name, needed, [WHITE]).result.get("error", "").startswith(f"{name} takes")


def test_schemas_come_in_table_order():
    assert [schema["function"]["name"] for schema in tool_schemas()] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_coordinate_says_its_unit_and_what_it_is_measured_from(name):
    for parameter, schema in OPERATIONS[name].parameters.items():
        if parameter == "bbox":
            assert schema["description"] == "[x1, y1, x2, y2] in pixels of the original image"
            assert schema["minItems"] == schema["maxItems"] == 4
        elif parameter in ("x", "y"):
            assert re.fullmatch(r"pixels from the (left|top)", schema["description"])
