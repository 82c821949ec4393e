"""The definition of a visual operation: a name, an argument schema, a function of the pixels.

One definition is used for the tool schema in the prompt, for the results in generated data, and as
the environment of evaluation. All coordinates are pixels of the original image, with x to the
right and y down, and a box is `[x1, y1, x2, y2]` with x2 and y2 exclusive. The original image is
the first of an example; TRACK_OBJECT alone looks at others, each box in pixels of its own frame.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

# The kinds of errors of a call that could be parsed.
UNKNOWN_OPERATION, WRONG_ARGUMENTS, FAILED_OPERATION = PROBLEMS = (
    "unknown_operation",
    "wrong_arguments",
    "failed_operation",
)


class OperationError(ValueError):
    """A broken rule of the operation; becomes the observation `{"error": ...}`."""

    problem = WRONG_ARGUMENTS


class NothingFound(OperationError):
    """A valid call at a location where there is nothing."""

    problem = FAILED_OPERATION


@dataclass(frozen=True)
class Observation:
    """The result of an operation: a small JSON object and, for some, an image."""

    result: dict[str, Any]
    image: Image.Image | None = None
    problem: str = ""  # one of `PROBLEMS` if the result is an error; not shown to the model

    @property
    def is_error(self) -> bool:
        """Whether the call failed."""
        return "error" in self.result


@dataclass(frozen=True)
class Operation:
    """One visual operation; all arguments are required except those of `defaults` and `either`.

    `run` returns the observation of the example's images and the arguments, defaults included.
    """

    name: str
    description: str  # its line in the tool schema
    parameters: Mapping[str, Mapping[str, Any]]  # argument name -> JSON schema of its value
    run: Callable[[Sequence[Image.Image], Mapping[str, Any]], Observation]
    sophistication: int  # its weight in the difficulty score (1 to 3)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # argument name -> value
    either: tuple[str, ...] = ()  # parameters of which a call must have exactly one

    @property
    def expected(self) -> str:
        """The expected arguments, for an error: `x, y` or `exactly one of bbox, mask`."""
        always = [name for name in self.parameters if name not in self.either]
        if self.either:
            always.append(f"exactly one of {', '.join(self.either)}")
        return ", ".join(always)

    @property
    def signature(self) -> str:
        """The name and arguments on one line, for a prompt; only the first of `either`."""
        named = [name for name in self.parameters if name not in self.either[1:]]
        return f"{self.name}({', '.join(named)})"

    def accepts(self, names: Collection[str]) -> bool:
        """Return whether a call with exactly these arguments, defaults included, is complete."""
        left_out = set(self.parameters) - set(names)
        num_left_out = max(0, len(self.either) - 1)
        known = set(names) <= set(self.parameters)
        return known and left_out <= set(self.either) and len(left_out) == num_left_out

    def takes(self, arguments: Any) -> bool:
        """Return whether the names and values of these arguments (parsed JSON) fit the schema.

        `run` checks rules beyond the schema, such as that a box lies in the image.
        """
        if not isinstance(arguments, Mapping):
            return False
        given = {**self.defaults, **arguments}
        return self.accepts(given) and all(
            fits_schema(value, self.parameters[name]) for name, value in given.items()
        )

    def tool_schema(self) -> dict[str, Any]:
        """Return the operation as a JSON-schema function, the form that chat templates take."""
        optional = {*self.defaults, *self.either}
        parameters: dict[str, Any] = {
            "type": "object",
            "properties": {name: dict(schema) for name, schema in self.parameters.items()},
            "required": [name for name in self.parameters if name not in optional],
        }
        if self.either:
            parameters["oneOf"] = [{"required": [name]} for name in self.either]
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": parameters,
            },
        }


def fits_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether parsed JSON fits a schema (JSON Schema 2020-12, validation).

    It reads the keywords that operations use. Unlike in JSON Schema, `3.0` is no integer.
    """
    kind = schema["type"]
    if kind == "integer":
        return type(value) is int and schema.get("minimum", value) <= value <= schema.get(
            "maximum", value
        )
    if kind == "array":
        return (
            isinstance(value, list | tuple)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(fits_schema(item, schema["items"]) for item in value)
        )
    assert kind == "object", f"no parameter is of type {kind!r}"
    properties = schema["properties"]
    return (
        isinstance(value, Mapping)
        and all(name in value for name in schema.get("required", ()))
        and (schema.get("additionalProperties", True) or value.keys() <= properties.keys())
        and all(fits_schema(value[name], properties[name]) for name in value if name in properties)
    )


BBOX_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "items": {"type": "integer"},
    "minItems": 4,
    "maxItems": 4,
    "description": "[x1, y1, x2, y2] in pixels of the original image",
}


def check_bbox(value: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box in an image of `size` (width, height); raise OperationError for any other."""
    if not fits_schema(value, BBOX_SCHEMA):
        raise OperationError(f"bbox must be four integers [x1, y1, x2, y2], got {value!r:.60}")
    x1, y1, x2, y2 = value
    width, height = size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise OperationError(
            f"bbox must satisfy 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, "
            f"got {value!r:.60}"
        )
    return x1, y1, x2, y2


def check_point(x: Any, y: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return a point in an image of `size` (width, height); raise OperationError for any other."""
    width, height = size
    if type(x) is not int or type(y) is not int or not (0 <= x < width and 0 <= y < height):
        raise OperationError(
            f"x and y must be integers with 0 <= x < {width} and 0 <= y < {height}, "
            f"got x={x!r:.30}, y={y!r:.30}"
        )
    return x, y
