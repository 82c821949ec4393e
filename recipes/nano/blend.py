"""What the embedded base learns to say: a blend of seeing, finding, words and a few trajectories.

Every item is a function of (seed, index). Most of it is sight: the whole scene cell by cell, what
is where, a thing seen up close, where things are in each of several frames. Some is text to repeat,
recall and compare (`words`). Counting stays rare, trajectories rare and short: the curriculum is
there for the rest.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from pixelis.data.chat import Message, example_messages
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
from pixelis.data_prep.sources.drawn import DIRECTIONS, DrawnScenes
from pixelis.data_prep.tasks import TASKS
from pixelis.operations import execute
from recipes.nano.words import build_turns

KINDS = ("caption", "quiz", "locate", "closeup", "words", "trajectory", "frames")
WEIGHTS = (20, 20, 12, 5, 27, 7, 9)
QUESTIONS_IN_QUIZ = 6
OBJECTS_TO_LOCATE = 5
# Longer trajectories are what fine-tuning is to teach.
MAX_STEPS = 2

# How many texts and how many digits a scene holds.
WRITTEN = ((0, 0), (0, 0), (0, 0), (1, 0), (1, 1), (2, 0), (0, 1), (3, 0), (0, 2))
OVERLAPS = 0.25
QUESTIONS_ABOUT_FRAMES = 4

CAPTION_QUESTION = "Describe every cell."
CLOSEUP_QUESTION = "What is this?"


def place_question(cell: tuple[int, int]) -> str:
    """The question that the model card's attribute figure is measured with."""
    return f"What is in row {cell[0] + 1} column {cell[1] + 1}?"


def where_question(item: Item) -> str:
    """The question that the model card's place figure is measured with."""
    return f"Where is the {item.name}?"


def draw_scene(rng: random.Random) -> Scene:
    """A scene with 1 to 12 shapes, up to three texts and digits, clutter, and some overlaps."""
    num_texts, num_digits = rng.choice(WRITTEN)
    scene = random_scene(rng, rng.randint(1, 12 - num_digits), num_texts, num_digits)
    if rng.random() < OVERLAPS:
        pair = overlapping_pair(rng, rng.choice(CELLS), rng.choice(DIRECTIONS))
        cells = {item.cell for item in pair or ()}
        others = [item for item in scene.items if item.cell not in cells]
        return build_scene(rng, [*others, *(pair or ())], scene.num_strokes)
    return scene


def frame_question(item_name: str, number: int) -> str:
    """The question that the model card's frames figure is measured with."""
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
    # Half of the cells asked for hold something, however empty the scene is.
    cell = rng.choice(CELLS) if rng.random() < 0.5 else rng.choice(scene.items).cell
    found = scene.at(cell)
    return place_question(cell), found.name if found else "none"


def _about_item(rng: random.Random, scene: Scene) -> tuple[str, str]:
    item = rng.choice(_unique(scene))
    return where_question(item), item.place


def _about_count(scene: Scene) -> tuple[str, str]:
    return "How many objects are there?", str(len(scene.items))


def _locate(rng: random.Random, scene: Scene) -> tuple[str, str]:
    items = list(_unique(scene))
    items = rng.sample(items, min(len(items), OBJECTS_TO_LOCATE))
    names = ", ".join(f"the {item.name}" for item in items)
    return f"Where are {names}?", " ".join(f"The {item.name} is in {item.place}." for item in items)


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
    """A conversation, and what each cell of its scene holds by name (nothing for a close-up)."""

    messages: list[Message]
    held: Mapping[Cell, str]


def build_lesson(seed: int, index: int) -> Lesson:
    """Conversation `index` of the blend."""
    rng = random.Random(f"base:{seed}:{index}")
    kind = rng.choices(KINDS, WEIGHTS)[0]
    if kind == "trajectory":
        return _trajectory(rng, index)
    if kind == "frames":
        return _frames(rng)
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
    elif kind == "locate" and _unique(scene):
        turns = [_locate(rng, scene)]
    else:
        turns = [(CAPTION_QUESTION, scene.caption())]
    return Lesson(_dialogue([image], *turns), {item.cell: item.name for item in scene.items})


def _frames(rng: random.Random) -> Lesson:
    """Where things are in this image and in that; what a name refers to is for the text to say."""
    picture = DrawnScenes().picture(rng, "temporal_tracking")
    things = [thing for thing in picture.unique() if thing.path]
    turns = []
    for _ in range(QUESTIONS_ABOUT_FRAMES):
        thing, frame = rng.choice(things), rng.randrange(picture.num_frames)
        turns.append((frame_question(thing.name, frame + 1), thing.path[frame].name))
    return Lesson(_dialogue(picture.draw(), *turns), {})


def _trajectory(rng: random.Random, index: int) -> Lesson:
    task = rng.choice(list(TASKS))
    while True:
        example = generate_example(
            seed=rng.getrandbits(40), index=index, task=task, sample_type="positive"
        )
        if len(example.trajectory) <= MAX_STEPS:
            held = {tuple(o["cell"]): o["name"] for o in example.provenance["objects"]}
            if len(example.images) > 1:  # a name is in another place in every frame
                held = {}
            return Lesson(example_messages(example), held)


def build_texts(seed: int, count: int) -> list[str]:
    """Plain texts for the tokenizer: the blend, and trajectories of every type and length."""
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
    return texts
