"""What the embedded base learns from: blends of seeing, finding and short trajectories.

Every item is a function of (seed, index). Most of it is sight: the whole scene cell by cell, one
cell, where a thing is, a thing seen up close. Counting stays rare and trajectories short: the
curriculum is there for the rest.
"""

import random
from collections.abc import Sequence

from PIL import Image

from pixelis.data.chat import Message, example_messages
from pixelis.data.generate import generate_example
from pixelis.data.scenes import CELLS, Item, Scene, random_scene, random_text, render
from pixelis.data.tasks import TASKS
from pixelis.operations import execute

KINDS = ("caption", "place", "where", "count", "closeup", "trajectory", "quiz", "copy")
# First to see the whole scene, then to find what a question asks for: a place asked for is three
# tokens beside a caption's thirty, so a quiz asks for many at once.
SEEING = (48, 12, 20, 4, 6, 10, 0, 0)
FINDING = (30, 0, 0, 0, 5, 15, 50, 0)
MENDING = (43, 4, 0, 0, 4, 9, 40, 0)
# Last, to follow what a result says: what an operation read has to be copied letter by letter.
FOLLOWING = (12, 0, 0, 0, 3, 60, 15, 10)
QUESTIONS_IN_QUIZ = 6
# Longer trajectories are what fine-tuning is to teach.
MAX_STEPS = 2

CAPTION_QUESTION = "Describe every cell."
CLOSEUP_QUESTION = "What is this?"


def place_question(cell: tuple[int, int]) -> str:
    """The question that the model card's attribute figure is measured with."""
    return f"What is in row {cell[0] + 1} column {cell[1] + 1}?"


def draw_scene(rng: random.Random) -> Scene:
    """A scene with 1 to 12 shapes and up to three texts."""
    return random_scene(rng, rng.randint(1, 12), rng.choice((0, 0, 1, 2, 3)))


def _dialogue(image: Image.Image, *turns: tuple[str, str]) -> list[Message]:
    messages: list[Message] = []
    for question, answer in turns:
        messages.append(Message("user", (question,) if messages else (image, question)))
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
    return f"Where is the {item.name}?", item.place


def _about_count(scene: Scene) -> tuple[str, str]:
    return "How many objects are there?", str(len(scene.items))


def _quiz(rng: random.Random, scene: Scene) -> list[tuple[str, str]]:
    turns = []
    for _ in range(QUESTIONS_IN_QUIZ):
        kind = rng.random()
        if kind < 0.05:
            turns.append(_about_count(scene))
        elif kind < 0.4 and _unique(scene):
            turns.append(_about_item(rng, scene))
        else:
            turns.append(_about_place(rng, scene))
    return turns


def build_item(seed: int, index: int, weights: Sequence[int] = SEEING) -> list[Message]:
    """Conversation `index` of a blend; `weights` are those of KINDS."""
    rng = random.Random(f"base:{seed}:{index}")
    kind = rng.choices(KINDS, weights)[0]
    if kind == "trajectory":
        task = rng.choice(list(TASKS))
        while True:
            example = generate_example(
                seed=rng.getrandbits(40), index=index, task=task, sample_type="positive"
            )
            if len(example.trajectory) <= MAX_STEPS:
                return example_messages(example)
    scene = draw_scene(rng)
    image = render(scene)
    if kind == "closeup":
        item = rng.choice(scene.items)
        zoomed = execute("ZOOM_IN", {"bbox": item.box, "factor": 2}, [image]).image
        assert zoomed is not None
        return _dialogue(zoomed, (CLOSEUP_QUESTION, item.name))
    if kind == "copy":
        words = " ".join(random_text(rng, (0, 0)).text for _ in range(rng.randint(1, 3)))
        return _dialogue(image, (f"Repeat {words}.", words))
    if kind == "quiz":
        return _dialogue(image, *_quiz(rng, scene))
    if kind == "place":
        return _dialogue(image, _about_place(rng, scene))
    if kind == "where" and _unique(scene):
        return _dialogue(image, _about_item(rng, scene))
    if kind == "count":
        return _dialogue(image, _about_count(scene))
    return _dialogue(image, (CAPTION_QUESTION, scene.caption()))


def build_texts(seed: int, count: int) -> list[str]:
    """Plain texts for the tokenizer: the blend, and trajectories of every type and length."""
    texts: list[str] = []
    for index in range(count):
        messages = build_item(seed, index)
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
