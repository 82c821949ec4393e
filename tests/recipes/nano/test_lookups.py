import random

import pytest
import torch

from pixelis.data.chat import Message
from pixelis.data.encode import IGNORE_INDEX, collate
from pixelis.data_prep.scenes import CELLS, Item, build_scene, render
from pixelis.operations.readers.handwritten import digit_label
from recipes.nano.blend import CAPTION_QUESTION, build_lesson, frame_question
from recipes.nano.train import (
    CELL_CLASSES,
    PLACES,
    PLACES_ASKED,
    Lookups,
    Recipe,
    build_lookups,
    class_words,
    lookup_loss,
    read_out,
    train_vision,
    word_ids,
)

pytestmark = pytest.mark.integration

TINY = Recipe(vision_steps=2, lookup_steps=2, batch_size=3)


def test_names_and_places_are_one_token_each(tokenizer):
    assert len(set(word_ids(tokenizer, CELL_CLASSES).tolist())) == len(CELL_CLASSES) == 33
    assert len(set(word_ids(tokenizer, PLACES).tolist())) == len(PLACES) == len(CELLS)
    decoded = [tokenizer.decode([token]) for token in word_ids(tokenizer, PLACES)]
    assert decoded == [f" {place}" for place in PLACES]


def test_a_thing_is_read_as_its_name_its_colour_and_its_shape(tokenizer):
    targets = class_words(tokenizer)
    assert targets.shape == (33, len(tokenizer))
    torch.testing.assert_close(targets.sum(1), torch.ones(33))
    row = targets[CELL_CLASSES.index("red circle")]
    words = {tokenizer.decode([token]) for token in row.nonzero().flatten()}
    assert words == {" red circle", " red", " circle"}
    for name in ("none", "text", "digit"):
        (token,) = targets[CELL_CLASSES.index(name)].nonzero().flatten()
        assert tokenizer.decode([token]) == f" {name}"


def test_the_first_steps_move_the_tower_and_the_embeddings_alone(fresh_model, encoder, one_thread):
    model, before, reports = fresh_model(), fresh_model().state_dict(), []
    train_vision(model, encoder, TINY, lambda *report: reports.append(report))
    moved = {name for name, x in model.state_dict().items() if not x.equal(before[name])}
    tower = {name for name in before if ".visual." in name}
    assert moved == tower | {"lm_head.weight", "model.language_model.embed_tokens.weight"}
    assert [step for step, *_ in reports] == [1, 2]
    assert all(0 <= right <= 1 for *_, right in reports)


def test_the_drill_asks_each_name_that_stands_once_and_some_places(encoder):
    recipe, lookups = Recipe(lookup_steps=4, batch_size=5), Lookups(encoder.tokenizer)
    batch, again, other = (build_lookups(encoder, recipe, lookups, step) for step in (1, 1, 2))
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert not torch.equal(batch["find"], other["find"])
    assert "labels" not in batch
    assert ((batch["look"] != IGNORE_INDEX).sum(1) == PLACES_ASKED).all()
    ids, tokenizer = batch["input_ids"], encoder.tokenizer
    # What stands at a place that is asked for is, where it is named once, found in that cell.
    cell_of = {f" {place}": index for index, place in enumerate(PLACES)}
    num_checked = 0
    for row in range(5):
        held = {
            cell_of[tokenizer.decode([ids[row, at]])]: CELL_CLASSES[batch["look"][row, at]]
            for at in (batch["look"][row] != IGNORE_INDEX).nonzero().flatten()
        }
        for at in (batch["find"][row] != IGNORE_INDEX).nonzero().flatten():
            cell = int(batch["find"][row, at])
            num_checked += cell in held
            assert (
                held.get(cell, tokenizer.decode([ids[row, at]]).strip())
                == tokenizer.decode([ids[row, at]]).strip()
            )
    assert num_checked > 10


def test_what_is_asked_is_looked_up_and_what_is_said_of_a_place_is_not(encoder):
    lookups = Lookups(encoder.tokenizer)
    cell, other = (1, 2), (0, 0)
    items = [Item(cell, "red", "circle"), Item(other, text="A4"), Item((3, 3), text="H7")]
    items.append(Item((2, 2), text=digit_label(1000), digit=1000))
    image = render(build_scene(random.Random(0), items))
    held = {item.cell: item.name for item in items}
    messages = [
        Message("user", (image, "Is the red circle in row 1 column 1 or row 4 column 1?")),
        Message("user", ("Is the digit or the text in row 3 column 3?",)),
        Message("assistant", ("The red circle is in row 2 column 3.",), supervised=True),
    ]
    encoded = encoder.encode(messages)
    said = [encoder.tokenizer.decode([token]) for token in encoded.input_ids]
    found = [
        (text, find, look)
        for text, (find, look) in zip(said, lookups.targets(encoded, held), strict=True)
        if (find, look) != (IGNORE_INDEX, IGNORE_INDEX)
    ]
    assert found == [
        (" red circle", CELLS.index(cell), IGNORE_INDEX),
        (" row 1 column 1", IGNORE_INDEX, CELL_CLASSES.index("text")),
        (" row 4 column 1", IGNORE_INDEX, CELL_CLASSES.index("none")),
        # Of two texts neither is meant.
        (" digit", CELLS.index((2, 2)), IGNORE_INDEX),
        (" row 3 column 3", IGNORE_INDEX, CELL_CLASSES.index("digit")),
        (" red circle", CELLS.index(cell), IGNORE_INDEX),
    ]


def test_a_close_up_has_no_places_and_nothing_to_look_up(fresh_model, tokenizer, encoder):
    model, lookups = fresh_model(), Lookups(tokenizer)

    def loss_of(side, text, num_images=1):
        image = render(build_scene(random.Random(0), [])).resize((side, side))
        encoded = encoder.encode([Message("user", (image,) * num_images + (text,))])
        batch = collate([encoded], encoder)
        lookups.add_targets(batch, [lookups.targets(encoded, {})])
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "find", "look")}
        states = model.model(**inputs, output_hidden_states=True).hidden_states
        loss, right = lookup_loss(model, states, batch, lookups)
        return loss.item(), right

    assert loss_of(56, "What is this?") == (0.0, 1.0)
    assert loss_of(112, CAPTION_QUESTION)[0] > 1.0
    # Several frames have places, but a name or a place in the text says nothing of which frame.
    question = frame_question("red circle", 1)
    loss, right = loss_of(112, question, num_images=3)
    assert loss > 1.0 and right == 1.0


def test_of_several_frames_nothing_is_looked_up(encoder):
    lookups = Lookups(encoder.tokenizer)
    lessons = [build_lesson(0, index) for index in range(400)]
    lessons = [
        lesson for lesson in lessons if any(len(message.images) > 1 for message in lesson.messages)
    ]
    roles = {lesson.messages[0].role for lesson in lessons}
    assert roles == {"user", "system"}, "questions about frames, and trajectories"
    for lesson in lessons:
        encoded = encoder.encode(lesson.messages)
        assert {*encoded.input_ids} & {*lookups.names.tolist(), *lookups.places.tolist()}
        assert set(lookups.targets(encoded, lesson.contents)) == {(IGNORE_INDEX, IGNORE_INDEX)}


def test_hidden_states_are_read_through_the_tied_embeddings(fresh_model, tokenizer):
    model = fresh_model()
    ids = word_ids(tokenizer, ("red circle", "none"))
    logits = read_out(model, model.lm_head.weight[ids] * 7, ids)
    assert logits.shape == (2, 2) and logits.argmax(-1).tolist() == [0, 1]
