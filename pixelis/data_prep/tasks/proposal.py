"""The proposal of an example that a task makes from an annotated image, and the calls in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location

# Larger boxes are not enlarged.
ZOOMED_SIDE = 160
# Direction -> the axis of the centre (0 is x), and the sign that makes its coordinate the smaller.
DIRECTIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
# A direction is named where the centres differ along one axis by this many times the other.
DOMINANCE = 2.0

# For each step its arguments, updated with its result; no call has failed.
Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PlannedCall:
    """A step before it is run: the thought, and the call of an operation."""

    thought: str
    operation: str
    arguments: Mapping[str, Any]
    location: Location  # the location that `thought` names; a planted error looks at another one


@dataclass(frozen=True)
class Proposal:
    """An example before its operations have been run."""

    picture: AnnotatedImage
    question: str
    calls: tuple[PlannedCall, ...]
    # The text before the answer; it may depend on the results.
    conclusion: str | Callable[[Results], str]
    answer: str  # the answer by the annotations
    # Computes the answer from the results of the operations alone; the example is kept only where
    # both agree.
    answer_from: Callable[[Results], str]
    wrong_answers: tuple[str, ...]  # plausible wrong answers, for negatives and traps
    # Number of answers that the question allows, 0 for free text; None: answer and wrong answers.
    num_options: int | None = None


def segment(instance: Instance, thought: str = "") -> PlannedCall:
    """Segment an instance if its outline can be found, else zoom into its box."""
    location = instance.location
    thought = thought or location_thought(instance)
    if not instance.outlined:
        return zoom_in(location, thought)
    x, y = location.point
    return PlannedCall(thought, "SEGMENT_OBJECT_AT", {"x": x, "y": y}, location)


def call_on_box(
    operation: str, instance: Instance, thought: str = "", **arguments: Any
) -> PlannedCall:
    """Call an operation on the box of an instance."""
    arguments["bbox"] = list(instance.location.box)
    thought = thought or location_thought(instance)
    return PlannedCall(thought, operation, arguments, instance.location)


def zoom_in(location: Location, thought: str) -> PlannedCall:
    """Zoom into a location's box, to twice its size unless it is large already."""
    x1, y1, x2, y2 = location.box
    factor = 2 if max(x2 - x1, y2 - y1) <= ZOOMED_SIDE else 1
    return PlannedCall(thought, "ZOOM_IN", {"bbox": list(location.box), "factor": factor}, location)


def location_thought(instance: Instance) -> str:
    """Return the thought with the location of an instance."""
    return f"The {instance.name} is in {instance.location.name}."


def result_area(result: Mapping[str, Any]) -> int:
    """Return the area that a step measured, else that of its box."""
    x1, y1, x2, y2 = result["bbox"]
    return int(result.get("area", (x2 - x1) * (y2 - y1)))


def box_centre(box: Sequence[int], axis: int) -> float:
    """Return the middle of a box along an axis (0 is x), in pixels."""
    return (box[axis] + box[axis + 2]) / 2


def direction(first: Sequence[int], second: Sequence[int], min_distance: float) -> str:
    """Return where a box lies from another, a key of DIRECTIONS; empty if no axis dominates."""
    dx, dy = (box_centre(first, axis) - box_centre(second, axis) for axis in (0, 1))
    axis = 0 if abs(dx) >= abs(dy) else 1
    along, across = (dx, dy) if axis == 0 else (dy, dx)
    if abs(along) < max(min_distance, DOMINANCE * abs(across)):
        return ""
    return next(
        word for word, found in DIRECTIONS.items() if found == (axis, -1 if along > 0 else 1)
    )


def list_names(instances: Sequence[Instance]) -> str:
    """Write `the red circle, the blue cross or the green square`."""
    names = [f"the {instance.name}" for instance in instances]
    return ", ".join(names[:-1]) + " or " + names[-1]


def others(choices: Sequence[str], answer: str) -> tuple[str, ...]:
    """Return the choices other than the answer, as wrong answers."""
    return tuple(choice for choice in choices if choice != answer)
