"""What a task proposes: a picture, a question, the calls that settle it, the answer by truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data_prep.picture import Box, Picture, Spot, Thing

# Larger boxes are looked at as they are.
ZOOMED_SIDE = 160

Findings = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Call:
    """A planned step: what is said, and the operation that is then run on the pixels.

    Attributes:
        spot: where it looks, as `thought` names it; a planted error looks elsewhere.
    """

    thought: str
    operation: str
    arguments: Mapping[str, Any]
    spot: Spot


@dataclass(frozen=True)
class Draft:
    """A proposed example before its operations have been run.

    Attributes:
        answer: the answer by the picture's truth.
        answer_from: the answer by the operations' findings alone (each call's arguments and over
            them its result; the result alone where it is an error); generation keeps a draft only
            where the two agree.
        conclusion: what is said before the answer; it may go by the findings.
        wrong_answers: plausible wrong answers, for negatives and traps.
    """

    picture: Picture
    question: str
    calls: tuple[Call, ...]
    conclusion: str | Callable[[Findings], str]
    answer: str
    answer_from: Callable[[Findings], str]
    wrong_answers: tuple[str, ...]


def outline(thing: Thing, thought: str) -> Call:
    """Segment a thing where its outline can be found; else zoom into its box."""
    if not thing.outlined:
        return zoom(thing.spot, thought)
    x, y = thing.spot.point
    return Call(thought, "SEGMENT_OBJECT_AT", {"x": x, "y": y}, thing.spot)


def properties(thing: Thing, thought: str) -> Call:
    """Look up the properties of a thing."""
    return Call(thought, "GET_PROPERTIES", {"bbox": list(thing.spot.box)}, thing.spot)


def zoom(spot: Spot, thought: str) -> Call:
    """Zoom into a spot's box: twice, or as it is where it is large already."""
    x1, y1, x2, y2 = spot.box
    factor = 2 if max(x2 - x1, y2 - y1) <= ZOOMED_SIDE else 1
    return Call(thought, "ZOOM_IN", {"bbox": list(spot.box), "factor": factor}, spot)


def read(thing: Thing, thought: str) -> Call:
    """Read the text in a thing's box."""
    return Call(thought, "READ_TEXT", {"bbox": list(thing.spot.box)}, thing.spot)


def track(thing: Thing, thought: str, num_frames: int) -> Call:
    """Follow a thing from the first frame through all others."""
    frames = list(range(1, num_frames + 1))
    arguments = {"frames": frames, "bbox": list(thing.spot.box)}
    return Call(thought, "TRACK_OBJECT", arguments, thing.spot)


def located(thing: Thing) -> str:
    """The thought that places a thing."""
    return f"The {thing.name} is in {thing.spot.place}."


def found_box(finding: Mapping[str, Any]) -> Box | None:
    """The box that a step found, or looked at."""
    box = finding.get("bbox")
    return (box[0], box[1], box[2], box[3]) if box else None


def found_area(finding: Mapping[str, Any]) -> int:
    """The area that a step measured, else that of the box it looked at; 0 where it has none."""
    if "area" in finding:
        return int(finding["area"])
    box = found_box(finding)
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0


def centre(finding: Mapping[str, Any], axis: int) -> float | None:
    """The middle of a step's box along an axis (0 is x), in pixels."""
    box = found_box(finding)
    return (box[axis] + box[axis + 2]) / 2 if box else None


def weigh(measure: str, names: Sequence[str], values: Sequence[int]) -> str:
    """Put side by side what is compared, such as `Area of red circle: 361, blue cross: 208.`."""
    listed = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    return f"{measure} of {listed}."


def name_list(things: Sequence[Thing]) -> str:
    """`the red circle, the blue cross or the green square`."""
    names = [f"the {thing.name}" for thing in things]
    return ", ".join(names[:-1]) + " or " + names[-1]
