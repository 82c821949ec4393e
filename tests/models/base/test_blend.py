import collections

import pytest

from pixelis.data.scenes import CELLS
from pixelis.models.base.blend import (
    CAPTION_QUESTION,
    CLOSEUP_QUESTION,
    FINDING,
    KINDS,
    MAX_STEPS,
    QUESTIONS_IN_QUIZ,
    SEEING,
    build_item,
    build_texts,
    place_question,
)
from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES

COUNT_QUESTION = "How many objects are there?"
BLENDS = {"seeing": SEEING, "finding": FINDING}


@pytest.fixture(scope="module")
def blends():
    return {
        name: [build_item(0, index, weights) for index in range(500)]
        for name, weights in BLENDS.items()
    }


@pytest.fixture(scope="module", params=BLENDS)
def items(request, blends):
    return blends[request.param]


def kind_of_question(question):
    known = {CAPTION_QUESTION: "caption", CLOSEUP_QUESTION: "closeup", COUNT_QUESTION: "count"}
    return known.get(question, "where" if question.startswith("Where is the ") else "place")


def kind_of(messages):
    if messages[0].role == "system":
        return "trajectory"
    return "quiz" if len(messages) > 2 else kind_of_question(messages[0].parts[-1])


def answers(items, kind):
    """Image, question and answer of every turn that asks for this kind of thing."""
    found = []
    for messages in items:
        if messages[0].role != "system":
            (image,) = messages[0].images
            for user, assistant in zip(messages[::2], messages[1::2], strict=True):
                if kind_of_question(user.parts[-1]) == kind:
                    found.append((image, user.parts[-1], assistant.parts[0]))
    return found


def seen_at(image, cell):
    """What the operations find in a cell, as an answer names it."""
    row, col = cell
    box = {"bbox": [col * 28, row * 28, col * 28 + 28, row * 28 + 28]}
    if "text" in execute("READ_TEXT", box, [image]).result:
        return "text"
    found = execute("GET_PROPERTIES", box, [image]).result
    return "none" if "error" in found else f"{found['color']} {found['shape']}"


def plain(messages):
    return [
        (m.role, m.supervised, [p if isinstance(p, str) else p.tobytes() for p in m.parts])
        for m in messages
    ]


def test_an_item_is_a_function_of_seed_and_index(blends):
    for name, items in blends.items():
        for index in range(0, 60, 3):
            assert plain(build_item(0, index, BLENDS[name])) == plain(items[index])
            assert plain(build_item(1, index, BLENDS[name])) != plain(items[index])
        assert len({repr(plain(item)) for item in items}) == len(items)


def test_kinds_come_in_their_shares(blends):
    for name, items in blends.items():
        counts = collections.Counter(map(kind_of, items))
        for kind, weight in zip(KINDS, BLENDS[name], strict=True):
            assert abs(counts[kind] / len(items) - weight / sum(BLENDS[name])) < 0.07


def test_a_quiz_asks_several_things_about_one_image(blends):
    found = [messages for messages in blends["finding"] if kind_of(messages) == "quiz"]
    kinds = collections.Counter()
    for messages in found:
        assert [m.role for m in messages] == ["user", "assistant"] * QUESTIONS_IN_QUIZ
        assert [len(m.images) for m in messages] == [1] + [0] * (2 * QUESTIONS_IN_QUIZ - 1)
        kinds.update(kind_of_question(m.parts[-1]) for m in messages[::2])
    assert set(kinds) == {"place", "where", "count"}
    assert kinds["count"] < 0.1 * kinds.total()


def test_captions_and_places_say_what_is_on_the_pixels(items):
    for image, _, answer in answers(items, "caption")[:40]:
        words = iter(answer.split())
        for cell in CELLS:
            first = next(words)
            said = first if first in ("none", "text") else f"{first} {next(words)}"
            # The ink of a very wide text can be lost at its cell's edge.
            assert said == seen_at(image, cell) or said == "text"
    by_question = {place_question(cell): cell for cell in CELLS}
    places = answers(items, "place")[:400]
    for image, question, answer in places:
        assert answer in (seen_at(image, by_question[question]), "text")
    assert {answer for *_, answer in places} > {"none", "text"}


def test_where_and_closeup_and_count_are_true(items):
    for image, question, answer in answers(items, "where")[:400]:
        name = question.removeprefix("Where is the ").removesuffix("?")
        _, row, _, col = answer.split()
        assert name in ("text", seen_at(image, (int(row) - 1, int(col) - 1)))
    for image, _, answer in answers(items, "closeup"):
        assert image.size == (56, 56)
        assert answer == "text" or [*answer.split()] in [[c, s] for c in PALETTE for s in SHAPES]
    for image, _, answer in answers(items, "count"):
        assert int(answer) == sum(seen_at(image, cell) != "none" for cell in CELLS)


def test_trajectories_are_short_and_right(items):
    found = [m for m in items if kind_of(m) == "trajectory"]
    for messages in found:
        said = [message for message in messages if message.role == "assistant"]
        assert 2 <= len(said) <= MAX_STEPS + 1
        assert all(message.supervised for message in said)


def test_every_item_trains_the_assistant_alone(items):
    for messages in items:
        assert messages[-1].role == "assistant"
        assert all(m.supervised == (m.role == "assistant") for m in messages)


def test_texts_are_the_same_each_time_and_hold_no_special_token():
    texts = build_texts(0, 30)
    assert build_texts(0, 30) == texts != build_texts(1, 30)
    assert not any("<|" in text for text in texts)
    together = "\n".join(texts)
    for word in ("<tool_call>", "<tool_response>", "<answer>", "Describe every cell.", "assistant"):
        assert word in together
