import random
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from pixelis.data.chat import Message
from pixelis.data_prep.scenes import CELLS, SIDE, Item, render
from pixelis.data_prep.tasks.object_counting import MAX_COUNT
from pixelis.operations import execute
from recipes.nano import measure as measuring
from recipes.nano.blend import CAPTION_QUESTION, draw_scene, found_question
from recipes.nano.measure import HELD_OUT_SEED, generate_replies, measure

FRAME_QUESTION = re.compile(r"Where is the (\w+ \w+) in image (\d)\?")


class Parrot:
    """Answers with the last token of the prompt (before the generation prompt), then ends."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.batches = []

    def generate(self, input_ids, attention_mask, pixel_values=None, **options):
        assert attention_mask.all(), "no padding stands between prompt and reply"
        assert options["do_sample"] is False
        self.batches.append(len(input_ids))
        end = torch.full((len(input_ids), 1), self.encoder.end_of_turn_id)
        (start,) = {row.index(self.encoder.end_of_turn_id) for row in input_ids.tolist()}
        said = input_ids[:, start - 1 : start]
        return torch.cat([input_ids, said, end], dim=1)


def test_replies_come_in_the_order_of_the_prompts_batched_by_length(encoder, monkeypatch):
    monkeypatch.setattr(measuring, "BATCH_SIZE", 2)
    model = Parrot(encoder)
    image = Image.new("RGB", (28, 28))
    words = ["say 1", "now say 2", "say 3", "say 4", "now say 5"]
    prompts = [[Message("user", (image, word))] for word in words]
    assert generate_replies(model, encoder, prompts, 4) == ["1", "2", "3", "4", "5"]
    assert sorted(model.batches) == [1, 2, 2]


@pytest.fixture
def scenes():
    rng = random.Random(f"held-out:{HELD_OUT_SEED}")
    return [draw_scene(rng) for _ in range(10)]


def place_in_frame(prompt):
    """Where the pixels show what the question asks for, in the frame that it names."""
    (message,) = prompt
    name, number = FRAME_QUESTION.fullmatch(message.parts[-1]).groups()
    image = message.images[int(number) - 1]
    found = {}
    for item in map(Item, CELLS):
        seen = execute("GET_PROPERTIES", {"bbox": item.box}, [image]).result
        if "error" not in seen:
            found[f"{seen['color']} {seen['shape']}"] = item.place
    return found[name]


def answers_to_list(prompt, drawn):
    """The list that was drawn with the image of a prompt."""
    (message,) = prompt
    shown, question = message.images[0].tobytes(), message.parts[-1]
    (listed,) = {
        listed
        for picture, asked, listed, _ in drawn
        if found_question(asked) == question and picture.draw()[0].tobytes() == shown
    }
    return listed


class Teller:
    """Tells every next token rightly; in its n-th call, in the first n rows alone."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, **rest):
        self.seen.append(input_ids)
        told = input_ids.roll(-1, dims=1)
        told[len(self.seen) :] += 1
        return SimpleNamespace(logits=torch.nn.functional.one_hot(told))


def test_scores_are_shares_of_exact_matches(encoder, scenes, monkeypatch):
    asked, drawn, listed, teller = [], [], [], Teller()
    draw_found = measuring.draw_found
    monkeypatch.setattr(
        measuring, "draw_found", lambda rng: drawn.append(draw_found(rng)) or drawn[-1]
    )

    def replies(model, encoder, prompts, max_new_tokens):
        questions = [message.parts[-1] for (message,) in prompts]
        if questions[0].startswith("List the "):
            listed.append(prompts)
            return [answers_to_list(prompt, drawn) + "!" * n for n, prompt in enumerate(prompts)]
        asked.append(prompts)
        if FRAME_QUESTION.fullmatch(prompts[0][0].parts[-1]):
            right = [place_in_frame(prompt) for prompt in prompts]
            return [*right[:5], *(place + "." for place in right[5:])]
        if prompts[0][0].parts[1].startswith("Where"):
            return ["row 1 column 1"] * len(prompts)
        if prompts[0][0].parts[1] != CAPTION_QUESTION:
            return ["red circle"] * len(prompts)
        right = [scene.caption() for scene in scenes]
        return [*right[:6], right[6] + " none", "", "", ""]

    monkeypatch.setattr(measuring, "generate_replies", replies)
    scores = measure(teller, encoder, 10)
    lists = {f"list_{count}" for count in range(1, MAX_COUNT + 1)}
    seen = {"caption", "attribute", "where", "frames"}
    orders = [f"{name}_{count}" for name in ("order", "order_area") for count in (2, 3, 4)]
    decided = [*orders, "recall", "placed", "copy", "listed"]
    assert set(scores) == seen | set(decided) | lists
    assert scores["caption"] == 6 / 10 and scores["frames"] == 5 / 10
    # Every decided word of a lesson has to be right, behind the image of a scene.
    assert [scores[name] for name in decided] == [right / 10 for right in range(1, 11)]
    texts = [encoder.tokenizer.batch_decode(ids) for ids in teller.seen]
    for count, lessons in zip((2, 3, 4) * 2, texts, strict=False):
        assert {lesson.count(": ") for lesson in lessons} == {count}
    assert all(" by area, " in lesson for lessons in texts[3:6] for lesson in lessons)
    for lessons, word in zip(
        texts, ["first"] * 6 + ["Given", "The", "text", "no more"], strict=True
    ):
        assert len(set(lessons)) == 10
        assert all("<|image_pad|>" in lesson and word in lesson for lesson in lessons)
    for count, prompts in enumerate(listed, 1):
        assert scores[f"list_{count}"] == 1 / 2 and len(prompts) == 2
        assert all(answers_to_list(prompt, drawn).endswith(f": {count}.") for prompt in prompts)
    assert len(listed) == MAX_COUNT
    captions, places, frames, things = asked
    for prompts in (captions, places, things):
        for (message,), scene in zip(prompts, scenes, strict=True):
            assert message.parts[0].tobytes() == render(scene).tobytes()
    # Every place asked about holds a shape; the named ones are counted.
    named = 0
    for (message,), scene in zip(places, scenes, strict=True):
        _, row, _, col = message.parts[1].removeprefix("What is in ").removesuffix("?").split()
        item = scene.at((int(row) - 1, int(col) - 1))
        assert item is not None and not item.text
        named += item.name == "red circle"
    assert scores["attribute"] == named / 10
    at_first = 0
    for (message,), scene in zip(things, scenes, strict=True):
        name = message.parts[1].removeprefix("Where is the ").removesuffix("?")
        (item,) = [item for item in scene.items if item.name == name]
        at_first += item.place == "row 1 column 1"
    assert scores["where"] == at_first / 10
    # Of several frames any may be asked about, and no two questions show the same.
    numbers = {FRAME_QUESTION.fullmatch(message.parts[-1])[2] for (message,) in frames}
    assert len(numbers) > 1
    for (message,) in frames:
        assert 2 <= len(message.images) <= 4
        assert {image.size for image in message.images} == {(SIDE, SIDE)}
    assert len({message.images[0].tobytes() for (message,) in frames}) == 10
