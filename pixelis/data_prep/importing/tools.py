"""Map the calls of other tools to our operations, as the section `import.tools` says."""

import math
from collections.abc import Mapping
from typing import Any

from pixelis.config import PROFILES, ToolConfig, suggest
from pixelis.data_prep.importing.values import RejectedError, show
from pixelis.errors import ConfigError
from pixelis.operations import OPERATIONS

UNITS = ("pixels", "fractions", "thousandths")
# Arguments of operations that are coordinates -> the axis of each: 0 for x, 1 for y.
AXES = {"bbox": (0, 1, 0, 1), "x": (0,), "y": (1,)}


def check_tools(tools: Mapping[str, ToolConfig]) -> None:
    """Raise a ConfigError if a mapping names an operation or an argument that we do not have."""
    for name, tool in tools.items():
        key = f"import.tools.{name}"
        if tool.operation not in OPERATIONS:
            raise ConfigError(
                f"{key}.operation must be one of {', '.join(OPERATIONS)}, got {tool.operation!r}"
                f"{suggest(tool.operation, OPERATIONS)}"
            )
        known = OPERATIONS[tool.operation].parameters
        ours = [each for each in tool.arguments.values() if isinstance(each, str)]
        for argument in (*ours, *tool.fixed):
            if argument not in known:
                raise ConfigError(
                    f"{key} must name arguments of {tool.operation}, which takes "
                    f"{', '.join(known)}, got {argument!r}{suggest(argument, known)}"
                )


def map_call(
    name: str, arguments: Mapping[str, Any], tool: ToolConfig, size: tuple[int, int] | None
) -> tuple[str, dict[str, Any]]:
    """Convert a call to another tool into an operation and its arguments.

    Args:
        name: the name of the tool.
        arguments: the arguments of the call.
        tool: the mapping of the tool to an operation.
        size: width and height of the question's image; None if it has none.

    Raises:
        RejectedError: when an argument is not mapped, or the coordinates do not fit the image.
    """
    if size is None:
        raise RejectedError("no_image", f"a call of {name} needs an image")
    known = OPERATIONS[tool.operation].parameters
    mapped: dict[str, Any] = dict(tool.fixed)
    given: dict[str, str] = {}  # our argument -> its name in the call
    for key, value in arguments.items():
        ours = tool.arguments.get(key, key)
        if isinstance(ours, int):
            if value != ours:
                raise RejectedError(
                    "unknown_operation",
                    f"{name} with {key} {show(value)} is not mapped, only with {ours}",
                    f"tool {show(name)} is mapped with {key} {ours} only",
                )
        elif ours is not None:
            if ours not in known:
                raise RejectedError(
                    "unknown_operation",
                    f"the argument {show(key)} of {name} is not mapped; {tool.operation} takes "
                    f"{', '.join(known)}",
                    f"argument {show(key)} of tool {show(name)} is not mapped",
                )
            if ours in given:
                raise RejectedError("broken_call", f"{name} gives {given[ours]} and {key}")
            given[ours] = key
            if ours in AXES:
                value = _to_pixels(f"{key} of {name}", value, AXES[ours], tool.unit, size)
            mapped[ours] = value
    return tool.operation, mapped


def _to_pixels(
    what: str, value: Any, axes: tuple[int, ...], unit: str, size: tuple[int, int]
) -> list[int] | int:
    """Return coordinates in whole pixels; a box covers every pixel that it touches."""
    values = value if isinstance(value, list) else [value]
    if len(values) != len(axes) or any(type(each) not in (int, float) for each in values):
        expected = "a number" if len(axes) == 1 else f"{len(axes)} numbers"
        raise RejectedError("broken_call", f"{what} must be {expected}, got {show(value)}")
    fitting = [each for each in UNITS if _fits(values, axes, each, size)]
    if unit not in fitting:
        hint = f"{' or '.join(fitting)} would fit" if fitting else "no unit fits"
        raise RejectedError(
            "outside_image",
            f"{what} {show(value)} is empty or outside its image of {size[0]} x {size[1]} in "
            f"{unit}; {hint}",
            f"{what} is empty or outside its image in {unit}; {hint}",
        )
    pixels = []
    for position, (each, axis) in enumerate(zip(values, axes, strict=True)):
        # Rounded first, since 0.28 * 100 is a little more than 28.
        exact = round(each * size[axis] / _span(unit, axis, size), 6)
        pixels.append(math.ceil(exact) if position >= 2 else math.floor(exact))
    return pixels if isinstance(value, list) else pixels[0]


def _fits(values: list[float], axes: tuple[int, ...], unit: str, size: tuple[int, int]) -> bool:
    """Return whether coordinates are valid in a unit: inside the image, and not empty."""
    is_box = len(values) == 4
    # A box of at most one pixel, or a point between two pixels, is assumed to be in fractions.
    if unit != "fractions" and max(values) <= 1 and (is_box or values[0] % 1):
        return False
    if is_box and not (values[0] < values[2] and values[1] < values[3]):
        return False
    spans = (_span(unit, axis, size) for axis in axes)
    return all(0 <= each <= span for each, span in zip(values, spans, strict=True))


def _span(unit: str, axis: int, size: tuple[int, int]) -> int:
    """Return the width or the height of an image in a unit."""
    return {"pixels": size[axis], "fractions": 1, "thousandths": 1000}[unit]


def describe_unmapped(name: str) -> str:
    """Say that a tool is not mapped, and which profile would map it."""
    profiles = [profile for profile, tools in PROFILES.items() if name in tools]
    hint = f"; import.tools={' or '.join(profiles)} would map it" if profiles else ""
    return f"tool {show(name)} is not mapped{hint}"
