"""Score the embedded base on held-out scenes by exact match of its generated answers."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image

from pixelis.data.chat import Message
from pixelis.data.encode import IGNORE_INDEX, Encoder, collate
from pixelis.data_prep.annotated_image import AnnotatedImage, Instance
from pixelis.data_prep.scenes import Item, Scene, render
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.data_prep.tasks.object_counting import MAX_COUNT
from pixelis.models.forward import model_inputs
from recipes.nano.blend import (
    CAPTION_QUESTION,
    draw_found,
    draw_scene,
    found_question,
    frame_question,
    place_question,
    where_question,
)
from recipes.nano.decisions import (
    MAX_NAMED,
    Build,
    build_copy,
    build_found,
    build_order,
    build_placed,
    encode_lesson,
    recall_one,
)
from recipes.nano.train import behind_image

HELD_OUT_SEED = 20_000_000
BATCH_SIZE = 50


@torch.inference_mode()
def generate_replies(
    model: Any, encoder: Encoder, prompts: Sequence[Sequence[Message]], max_new_tokens: int
) -> list[str]:
    """Generate greedy replies to prompts of images and a question each, in their order."""
    encoded = [encoder.encode(prompt, add_generation_prompt=True) for prompt in prompts]
    replies: dict[int, str] = {}
    for length in {len(item) for item in encoded}:
        indices = [index for index, item in enumerate(encoded) if len(item) == length]
        for start in range(0, len(indices), BATCH_SIZE):
            chosen = indices[start : start + BATCH_SIZE]
            batch = model_inputs(collate([encoded[i] for i in chosen], encoder))
            output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
            texts = encoder.tokenizer.batch_decode(
                output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
            )
            replies.update(zip(chosen, texts, strict=True))
    return [replies[index].strip() for index in range(len(prompts))]


def draw_mover(rng: random.Random) -> tuple[AnnotatedImage, Instance]:
    """Draw frames and an object that changes its place in them."""
    while True:
        picture = DrawnScenes().picture(rng, "temporal_tracking")
        movers = [instance for instance in picture.unique() if len(set(instance.path)) > 1]
        if movers:
            return picture, rng.choice(movers)


def measure(model: Any, encoder: Encoder, num_scenes: int) -> dict[str, float]:
    """Compute exact-match rates in [0, 1] on scenes that are not in the training data.

    Returns:
        `caption`: all 16 cells right; `attribute`: colour and shape at the place of a shape;
        `where`: row and column of a shape that is named; `frames`: the same, of a shape that
        moves, in one of several images, which the question names by its number; `list_N`:
        everything in the scene listed, with the N things of one class counted. Of lessons behind a
        scene, all decided words right, each after the right words before it: `order_N`: N names put
        in the order of their rows, columns or areas; `order_area_N`: of areas alone; `recall`: the
        name of a value, or the value of a name; `placed`: the rows or columns of places, and the
        extreme; `copy`: texts; `listed`: what counts in a list, and its name and place.
    """
    assert num_scenes % MAX_COUNT == 0, f"num_scenes must be a multiple of {MAX_COUNT}"

    def unique_shapes(scene: Scene) -> list[Item]:
        names = [item.name for item in scene.items]
        return [item for item in scene.shapes() if names.count(item.name) == 1]

    rng = random.Random(f"held-out:{HELD_OUT_SEED}")
    scenes = [draw_scene(rng) for _ in range(num_scenes)]
    targets = [rng.choice(unique_shapes(scene)) for scene in scenes]
    images = [(render(scene),) for scene in scenes]

    def share_right(
        questions: list[str],
        answers: list[str],
        max_new_tokens: int,
        shown: Sequence[tuple[Image.Image, ...]] = images,
    ) -> float:
        prompts = [
            [Message("user", (*frames, question))]
            for frames, question in zip(shown, questions, strict=True)
        ]
        replies = generate_replies(model, encoder, prompts, max_new_tokens)
        return sum(r == a for r, a in zip(replies, answers, strict=True)) / len(answers)

    def share_decided(kind: Build) -> float:
        right = 0
        for start in range(0, num_scenes, BATCH_SIZE):
            shown = [render(scene) for scene in scenes[start : start + BATCH_SIZE]]
            lessons = [encode_lesson(encoder.tokenizer, kind(rng)) for _ in shown]
            pairs = zip(shown, lessons, strict=True)
            batch = collate([behind_image(encoder, *pair) for pair in pairs], encoder)
            with torch.inference_mode():
                said = model(**model_inputs(batch)).logits[:, :-1].argmax(-1)
            labels = batch["labels"][:, 1:]
            right += int(((said == labels) | (labels == IGNORE_INDEX)).all(-1).sum())
        return right / num_scenes

    def share_listed(count: int) -> float:
        drawn: list[Any] = []
        while len(drawn) < num_scenes // MAX_COUNT:
            found = draw_found(rng)
            drawn += [found] if found[-1] == count else []
        pictures, asked, answers, _ = zip(*drawn, strict=True)
        frames = [picture.draw() for picture in pictures]
        return share_right(list(map(found_question, asked)), list(answers), 128, frames)

    captions = [scene.caption() for scene in scenes]
    names, places = [item.name for item in targets], [item.place for item in targets]
    pictures, followed = zip(*(draw_mover(rng) for _ in range(num_scenes)), strict=True)
    numbers = [rng.randrange(picture.num_frames) for picture in pictures]
    return {
        "caption": share_right([CAPTION_QUESTION] * num_scenes, captions, 48),
        "attribute": share_right([place_question(item.cell) for item in targets], names, 6),
        "frames": share_right(
            [frame_question(t.name, n + 1) for t, n in zip(followed, numbers, strict=True)],
            [t.path[n].name for t, n in zip(followed, numbers, strict=True)],
            8,
            [picture.draw() for picture in pictures],
        ),
        "where": share_right([where_question(item) for item in targets], places, 8),
        **{
            f"{name}_{count}": share_decided(
                partial(build_order, num_names=count, area_share=share)
            )
            for name, share in {"order": 1 / 3, "order_area": 1}.items()
            for count in range(2, MAX_NAMED + 1)
        },
        "recall": share_decided(recall_one),
        "placed": share_decided(build_placed),
        "copy": share_decided(build_copy),
        "listed": share_decided(build_found),
        **{f"list_{count}": share_listed(count) for count in range(1, MAX_COUNT + 1)},
    }
