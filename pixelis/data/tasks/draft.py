"""What a task proposes: a scene, a question, the calls that settle it, and the answer by truth."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.data.scenes import CELLS, Cell, Item, Scene, build_scene, draw_items, random_text

Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Call:
    """A planned step: what is said, and the operation that is then run on the pixels."""

    thought: str
    operation: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """A proposed example before its operations have been run.

    Attributes:
        answer: the answer by the scene's truth.
        answer_from: the answer by the operations' results alone; generation keeps a draft only
            where the two agree.
        conclusion: what is said before the answer; it may go by the operations' results.
        wrong_answers: plausible wrong answers, for negatives and traps.
    """

    scene: Scene
    question: str
    calls: tuple[Call, ...]
    conclusion: str | Callable[[Results], str]
    answer: str
    answer_from: Callable[[Results], str]
    wrong_answers: tuple[str, ...]


def segment(item: Item, thought: str) -> Call:
    """Segment the object in the item's cell."""
    return Call(thought, "SEGMENT_OBJECT_AT", item.point)


def properties(item: Item, thought: str) -> Call:
    """Look up the properties of the object in the item's cell."""
    return Call(thought, "GET_PROPERTIES", {"bbox": item.box})


def zoom(item: Item, thought: str) -> Call:
    """Zoom into the item's cell."""
    return Call(thought, "ZOOM_IN", {"bbox": item.box, "factor": 2})


def read(item: Item, thought: str) -> Call:
    """Read the text in the item's cell."""
    return Call(thought, "READ_TEXT", {"bbox": item.box})


def located(item: Item) -> str:
    """The thought that places an item."""
    return f"The {item.name} is in {item.place}."


def fill_scene(
    rng: random.Random,
    items: Sequence[Item],
    *,
    num_distractors: int,
    num_texts: int = 0,
    avoid: Callable[[Item], bool] = lambda item: False,
    keep_free: Sequence[Cell] = (),
) -> Scene:
    """Add distinct random shapes (none for which `avoid` holds) and texts in cells left free."""
    taken = {item.cell for item in items} | set(keep_free)
    free = [cell for cell in CELLS if cell not in taken]
    rng.shuffle(free)
    wanted = min(num_distractors, len(free))
    names = [item.name for item in items if not item.text]
    distractors = draw_items(rng, free[:wanted], avoid=names)
    kept = [item for item in distractors if not avoid(item)]
    texts = [random_text(rng, cell) for cell in free[wanted : wanted + num_texts]]
    return build_scene(rng, [*items, *kept, *texts])


def weigh(measure: str, names: Sequence[str], values: Sequence[int]) -> str:
    """Put side by side what is compared, such as `Area of red circle: 361, blue cross: 208.`."""
    listed = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    return f"{measure} of {listed}."


def name_list(items: Sequence[Item]) -> str:
    """`the red circle, the blue cross or the green square`."""
    names = [f"the {item.name}" for item in items]
    return ", ".join(names[:-1]) + " or " + names[-1]
