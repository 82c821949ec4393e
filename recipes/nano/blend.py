"""The conversations that the embedded base is trained on.

Each is a function of (seed, index). Most are about seeing: the complete scene cell by cell, the
object at a position, one object close up, positions in several frames, all of a class. Some are
text to repeat and recall (`text_lessons`). Trajectories are rare and short:
the curriculum teaches the rest.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from pixelis.data.chat import Message, example_messages
from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.scenes import (
    CELLS,
    Cell,
    Item,
    Scene,
    build_scene,
    overlapping_pair,
    random_scene,
    render,
)
from pixelis.data_prep.sources.drawn import DIRECTIONS, DrawnScenes, to_picture
from pixelis.data_prep.tasks import TASKS
from pixelis.data_prep.tasks.attribute_recognition import RELATIONS
from pixelis.data_prep.tasks.conclusions import list_values
from pixelis.data_prep.tasks.object_counting import conclude_found, countable_groups
from pixelis.operations import execute
from recipes.nano.decisions import LESSONS, MAX_NAMED
from recipes.nano.text_lessons import build_turns

KINDS = {
    "caption": 14,
    "quiz": 14,
    "locate": 8,
    "axis": 6,
    "closeup": 5,
    "words": 10,
    "found": 24,
    "beside": 6,
    "trajectory": 3,
    "frames": 10,
}
QUESTIONS_IN_QUIZ = 6
OBJECTS_TO_LOCATE = 5
NUM_QUESTIONS = 4
# Longer trajectories are left to fine-tuning, and so is reading: one step and a copy.
MAX_STEPS = 1
TASKS_SHOWN = tuple(task for task in TASKS if task != "text_extraction")

# Numbers of texts and of digits in a scene, one pair drawn for each.
NUM_TEXTS_AND_DIGITS = ((0, 0), (0, 0), (0, 0), (1, 0), (1, 1), (2, 0), (0, 1), (3, 0), (0, 2))
OVERLAP_PROBABILITY = 0.25
QUESTIONS_ABOUT_FRAMES = 4

CAPTION_QUESTION = "Describe every cell."
CLOSEUP_QUESTION = "What is this?"


def place_question(cell: tuple[int, int]) -> str:
    """Return the question of the model card's `attribute` score."""
    return f"What is in row {cell[0] + 1} column {cell[1] + 1}?"


def where_question(item: Item) -> str:
    """Return the question of the model card's `where` score."""
    return f"Where is the {item.name}?"


def draw_scene(rng: random.Random) -> Scene:
    """Draw a scene with 1 to 12 shapes, up to three texts or digits, clutter and overlaps."""
    num_texts, num_digits = rng.choice(NUM_TEXTS_AND_DIGITS)
    scene = random_scene(rng, rng.randint(1, 12 - num_digits), num_texts, num_digits)
    if rng.random() < OVERLAP_PROBABILITY:
        pair = overlapping_pair(rng, rng.choice(CELLS), rng.choice(DIRECTIONS))
        cells = {item.cell for item in pair or ()}
        others = [item for item in scene.items if item.cell not in cells]
        return build_scene(rng, [*others, *(pair or ())], scene.num_strokes)
    return scene


def frame_question(item_name: str, number: int) -> str:
    """Return the question of the model card's `frames` score."""
    return f"Where is the {item_name} in image {number}?"


def _dialogue(images: Sequence[Image.Image], *turns: tuple[str, str]) -> list[Message]:
    messages: list[Message] = []
    for question, answer in turns:
        messages.append(Message("user", (question,) if messages else (*images, question)))
        messages.append(Message("assistant", (answer,), supervised=True))
    return messages


def _unique(scene: Scene) -> Sequence[Item]:
    names = [item.name for item in scene.items]
    return [item for item in scene.items if names.count(item.name) == 1]


def _about_place(rng: random.Random, scene: Scene) -> tuple[str, str]:
    # At least half of the questions are about a cell with an object, even in an empty scene.
    cell = rng.choice(CELLS) if rng.random() < 0.5 else rng.choice(scene.items).cell
    item = scene.at(cell)
    return place_question(cell), item.name if item else "none"


def _about_item(rng: random.Random, scene: Scene) -> tuple[str, str]:
    item = rng.choice(_unique(scene))
    return where_question(item), item.place


def _about_neighbour(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """Ask what is in the cell beside a thing, which may be empty."""
    relation, (down, right) = rng.choice(list(RELATIONS.items()))
    inside = [
        (item, (item.cell[0] + down, item.cell[1] + right))
        for item in _unique(scene)
        if (item.cell[0] + down, item.cell[1] + right) in CELLS
    ]
    if not inside:
        return _about_place(rng, scene)
    item, cell = rng.choice(inside)
    there = scene.at(cell)
    answer = f"{Item(cell).place}: {there.name if there else 'none'}"
    return f"What is {relation} the {item.name}?", answer


def _about_count(scene: Scene) -> tuple[str, str]:
    return "How many objects are there?", str(len(scene.items))


def _locate(rng: random.Random, scene: Scene) -> tuple[str, str]:
    items = list(_unique(scene))
    items = rng.sample(items, min(len(items), OBJECTS_TO_LOCATE))
    names = ", ".join(f"the {item.name}" for item in items)
    return f"Where are {names}?", " ".join(f"The {item.name} is in {item.place}." for item in items)


def _about_axis(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """Ask for the rows or the columns of some things."""
    items = list(_unique(scene))
    items = rng.sample(items, min(len(items), rng.randint(1, MAX_NAMED)))
    axis = rng.choice((0, 1))
    listed = list_values([item.name for item in items], [item.cell[axis] + 1 for item in items])
    names = ", ".join(f"the {item.name}" for item in items)
    return f"By {('row', 'column')[axis]}, where are {names}?", f"{listed}."


def _quiz(rng: random.Random, scene: Scene) -> list[tuple[str, str]]:
    turns = []
    for _ in range(QUESTIONS_IN_QUIZ):
        kind = rng.random()
        if kind < 0.05:
            turns.append(_about_count(scene))
        elif kind < 0.5 and _unique(scene):
            turns.append(_about_item(rng, scene))
        else:
            turns.append(_about_place(rng, scene))
    return turns


@dataclass(frozen=True)
class Lesson:
    """A conversation, and the name of the object in each cell (empty for a close-up)."""

    messages: list[Message]
    contents: Mapping[Cell, str]


def build_lesson(seed: int, index: int) -> Lesson:
    """Build conversation number `index`."""
    rng = random.Random(f"base:{seed}:{index}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "trajectory":
        return _trajectory(rng, index)
    if kind == "frames":
        return _frames(rng)
    if kind == "found":
        return _found(rng)
    scene = draw_scene(rng)
    image = render(scene)
    if kind == "closeup":
        item = rng.choice(scene.items)
        zoomed = execute("ZOOM_IN", {"bbox": item.box, "factor": 2}, [image]).image
        assert zoomed is not None
        return Lesson(_dialogue([zoomed], (CLOSEUP_QUESTION, item.name)), {})
    if kind == "quiz":
        turns = _quiz(rng, scene)
    elif kind == "words":
        turns = build_turns(rng)
    elif kind == "beside":
        turns = [_about_neighbour(rng, scene) for _ in range(NUM_QUESTIONS)]
    elif kind == "locate" and _unique(scene):
        turns = [_locate(rng, scene)]
    elif kind == "axis" and _unique(scene):
        turns = [_about_axis(rng, scene) for _ in range(NUM_QUESTIONS)]
    else:
        turns = [(CAPTION_QUESTION, scene.caption())]
    return Lesson(_dialogue([image], *turns), {item.cell: item.name for item in scene.items})


def found_question(asked: str) -> str:
    """Return the question of the model card's `list by class` score."""
    return f"List the {asked}."


def draw_found(rng: random.Random) -> tuple[AnnotatedImage, str, str, int]:
    """Draw a picture, a class of things in it, their list in reading order, and their number."""
    while True:
        # Half of the pictures have many things of one class, of which some share a name.
        picture = (
            DrawnScenes().picture(rng, "object_counting")
            if rng.random() < 0.5
            else to_picture(draw_scene(rng))
        )
        groups = countable_groups(picture)
        if groups:
            asked = rng.choice(list(groups))
            return picture, asked, conclude_found(picture, asked, groups[asked]), len(groups[asked])


def _found(rng: random.Random) -> Lesson:
    picture, asked, listed, _ = draw_found(rng)
    names = {each.cell: each.name for each in picture.instances if each.cell}
    return Lesson(_dialogue(picture.draw(), (found_question(asked), listed)), names)


def _frames(rng: random.Random) -> Lesson:
    """Ask for positions in one of several images; the question names the image by its number."""
    picture = DrawnScenes().picture(rng, "temporal_tracking")
    things = [thing for thing in picture.unique() if thing.path]
    turns = []
    for _ in range(QUESTIONS_ABOUT_FRAMES):
        thing, frame = rng.choice(things), rng.randrange(picture.num_frames)
        turns.append((frame_question(thing.name, frame + 1), thing.path[frame].name))
    return Lesson(_dialogue(picture.draw(), *turns), {})


def _trajectory(rng: random.Random, index: int) -> Lesson:
    while True:
        task = rng.choice(TASKS_SHOWN)
        example = generate_example(
            seed=rng.getrandbits(40), index=index, task=task, sample_type="positive"
        )
        if len(example.trajectory) <= MAX_STEPS:
            contents = {tuple(o["cell"]): o["name"] for o in example.provenance["objects"]}
            if len(example.images) > 1:  # an object moves between the frames
                contents = {}
            return Lesson(example_messages(example), contents)


def build_texts(seed: int, count: int) -> list[str]:
    """Build plain texts for the tokenizer: conversations, trajectories of every type, decisions."""
    texts: list[str] = []
    for index in range(count):
        messages = build_lesson(seed, index).messages
        if index % 2:
            rng = random.Random(f"text:{seed}:{index}")
            sample_type = rng.choice(("positive", "positive", "self_correction", "trap_logical"))
            example = generate_example(
                seed=seed, index=index, task=rng.choice(list(TASKS)), sample_type=sample_type
            )
            messages = example_messages(example)
        texts.extend(part for m in messages for part in m.parts if isinstance(part, str))
        texts.extend(m.role + "\n" for m in messages)
        kinds, weights = list(LESSONS), list(LESSONS.values())
        decision = random.Random(f"decision:{seed}:{index}")
        texts.append("".join(part for part, _ in decision.choices(kinds, weights)[0](decision)))
    return texts
