"""The visual operations by name. To add one, add a file here and its line in the table."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pixelis.operations.base import (
    FAILED_OPERATION,
    PROBLEMS,
    UNKNOWN_OPERATION,
    WRONG_ARGUMENTS,
    Observation,
    Operation,
    OperationError,
)
from pixelis.operations.get_properties import GET_PROPERTIES
from pixelis.operations.read_text import READ_TEXT
from pixelis.operations.segment_object_at import SEGMENT_OBJECT_AT
from pixelis.operations.track_object import TRACK_OBJECT
from pixelis.operations.zoom_in import ZOOM_IN

__all__ = [
    "FAILED_OPERATION",
    "OPERATIONS",
    "PROBLEMS",
    "UNKNOWN_OPERATION",
    "WRONG_ARGUMENTS",
    "Observation",
    "Operation",
    "OperationError",
    "execute",
    "tool_schemas",
]

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (ZOOM_IN, SEGMENT_OBJECT_AT, READ_TEXT, GET_PROPERTIES, TRACK_OBJECT)
}


def execute(name: str, arguments: Any, images: Sequence[Image.Image]) -> Observation:
    """Run an operation on an example's images; an invalid call returns an error observation.

    Deterministic and without side effects. The only files read are the digits and models in the
    packages of READ_TEXT; no process is started and no network is used.

    Args:
        name: a key of `OPERATIONS`.
        arguments: the call's arguments as parsed JSON (a mapping where the call is valid).
        images: the example's images, at least one; coordinates are pixels of the first, except
            in TRACK_OBJECT, which names its frames.
    """
    operation = OPERATIONS.get(name) if isinstance(name, str) else None
    if operation is None:
        choices = ", ".join(OPERATIONS)
        return _error(f"unknown operation {name!r:.40}; choices: {choices}", UNKNOWN_OPERATION)
    if not isinstance(arguments, Mapping):
        return _error(f"arguments must be an object, got {arguments!r:.40}", WRONG_ARGUMENTS)
    complete = {**operation.defaults, **arguments}
    if not operation.accepts(complete):
        got = ", ".join(map(str, arguments))[:60] or "none"
        return _error(f"{name} takes {operation.expected}; got {got}", WRONG_ARGUMENTS)
    try:
        return operation.run(images, complete)
    except OperationError as error:
        return _error(str(error), error.problem)


def _error(message: str, problem: str) -> Observation:
    return Observation({"error": message}, problem=problem)


def tool_schemas() -> list[dict[str, Any]]:
    """Return all operations as JSON-schema functions, in table order."""
    return [operation.tool_schema() for operation in OPERATIONS.values()]
