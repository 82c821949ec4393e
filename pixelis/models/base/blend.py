"""What the embedded base learns from: a blend of seeing and of short trajectories.

Every item is a function of (seed, index). Most of it is sight: the whole scene cell by cell, one
cell, where a thing is, a thing seen up close. Counting stays rare and trajectories short: the
curriculum is there for the rest.
"""

import random
from collections.abc import Sequence

from PIL import Image

from pixelis.data.chat import Message, example_messages
from pixelis.data.generate import generate_example
from pixelis.data.scenes import CELLS, Item, Scene, random_scene, render
from pixelis.data.tasks import TASKS
from pixelis.operations import execute

KINDS = ("caption", "place", "where", "count", "closeup", "trajectory")
WEIGHTS = (48, 12, 20, 4, 6, 10)
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


def _dialogue(image: Image.Image, question: str, answer: str) -> list[Message]:
    return [
        Message("user", (image, question)),
        Message("assistant", (answer,), supervised=True),
    ]


def _unique(scene: Scene) -> Sequence[Item]:
    names = [item.name for item in scene.items]
    return [item for item in scene.items if names.count(item.name) == 1]


def build_item(seed: int, index: int) -> list[Message]:
    """Conversation `index` of the blend."""
    rng = random.Random(f"base:{seed}:{index}")
    kind = rng.choices(KINDS, WEIGHTS)[0]
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
        return _dialogue(zoomed, CLOSEUP_QUESTION, item.name)
    if kind == "place":
        # Half of the cells asked for hold something, however empty the scene is.
        cell = rng.choice(CELLS) if rng.random() < 0.5 else rng.choice(scene.items).cell
        found = scene.at(cell)
        return _dialogue(image, place_question(cell), found.name if found else "none")
    if kind == "where" and _unique(scene):
        item = rng.choice(_unique(scene))
        return _dialogue(image, f"Where is the {item.name}?", item.place)
    if kind == "count":
        return _dialogue(image, "How many objects are there?", str(len(scene.items)))
    return _dialogue(image, CAPTION_QUESTION, scene.caption())


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
