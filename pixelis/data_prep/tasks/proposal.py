"""The proposal of an example that a task makes from an annotated image, and the calls in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data_prep.annotated_image import AnnotatedImage, Box, Instance, Location

# Larger boxes are not enlarged.
ZOOMED_SIDE = 160

# For each step its arguments, updated with its result; for a failed call only the result.
Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PlannedCall:
    """A step before it is run: the thought, and the call of an operation.

    Attributes:
        location: the location that `thought` names; a planted error looks at another one.
    """

    thought: str
    operation: str
    arguments: Mapping[str, Any]
    location: Location


@dataclass(frozen=True)
class Proposal:
    """An example before its operations have been run.

    Attributes:
        conclusion: the text before the answer; it may depend on the results.
        answer: the answer by the annotations.
        answer_from: computes the answer from the results of the operations alone; the example is
            kept only where both agree.
        wrong_answers: plausible wrong answers, for negatives and traps.
    """

    picture: AnnotatedImage
    question: str
    calls: tuple[PlannedCall, ...]
    conclusion: str | Callable[[Results], str]
    answer: str
    answer_from: Callable[[Results], str]
    wrong_answers: tuple[str, ...]


def segment(instance: Instance, thought: str = "") -> PlannedCall:
    """Segment an instance if its outline can be found, else zoom into its box."""
    thought = thought or location_thought(instance)
    if not instance.outlined:
        return zoom_in(instance.location, thought)
    x, y = instance.location.point
    return PlannedCall(thought, "SEGMENT_OBJECT_AT", {"x": x, "y": y}, instance.location)


def get_properties(instance: Instance, thought: str = "") -> PlannedCall:
    """Ask for the properties of an instance."""
    return _call_on_box("GET_PROPERTIES", instance, thought or location_thought(instance))


def read_text(instance: Instance, thought: str) -> PlannedCall:
    """Read the text in the box of an instance."""
    return _call_on_box("READ_TEXT", instance, thought)


def track(instance: Instance, thought: str, num_frames: int) -> PlannedCall:
    """Follow an instance from the first frame through all others."""
    frames = list(range(1, num_frames + 1))
    return _call_on_box("TRACK_OBJECT", instance, thought, frames=frames)


def zoom_in(location: Location, thought: str) -> PlannedCall:
    """Zoom into a location's box, to twice its size unless it is large already."""
    x1, y1, x2, y2 = location.box
    factor = 2 if max(x2 - x1, y2 - y1) <= ZOOMED_SIDE else 1
    return PlannedCall(thought, "ZOOM_IN", {"bbox": list(location.box), "factor": factor}, location)


def _call_on_box(operation: str, instance: Instance, thought: str, **arguments: Any) -> PlannedCall:
    arguments["bbox"] = list(instance.location.box)
    return PlannedCall(thought, operation, arguments, instance.location)


def location_thought(instance: Instance) -> str:
    """Return the thought with the location of an instance."""
    return f"The {instance.name} is in {instance.location.name}."


def result_box(result: Mapping[str, Any]) -> Box | None:
    """Return the box that a step found, or else looked at."""
    box = result.get("bbox")
    return (box[0], box[1], box[2], box[3]) if box else None


def result_area(result: Mapping[str, Any]) -> int:
    """Return the area that a step measured, else that of its box; 0 where it has none."""
    if "area" in result:
        return int(result["area"])
    box = result_box(result)
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0


def box_centre(result: Mapping[str, Any], axis: int) -> float | None:
    """Return the middle of a step's box along an axis (0 is x), in pixels."""
    box = result_box(result)
    return (box[axis] + box[axis + 2]) / 2 if box else None


def list_values(measure: str, names: Sequence[str], values: Sequence[int]) -> str:
    """Write the compared values, such as `Area of red circle: 361, blue cross: 208.`."""
    listed = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    return f"{measure} of {listed}."


def list_names(instances: Sequence[Instance]) -> str:
    """Write `the red circle, the blue cross or the green square`."""
    names = [f"the {instance.name}" for instance in instances]
    return ", ".join(names[:-1]) + " or " + names[-1]


def others(choices: Sequence[str], answer: str) -> tuple[str, ...]:
    """Return the choices other than the answer, as wrong answers."""
    return tuple(choice for choice in choices if choice != answer)
