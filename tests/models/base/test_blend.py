import collections
import os
import subprocess
import sys

import pytest

from pixelis.data.scenes import CELLS
from pixelis.models.base.blend import (
    CAPTION_QUESTION,
    CLOSEUP_QUESTION,
    KINDS,
    MAX_STEPS,
    OBJECTS_TO_LOCATE,
    QUESTIONS_IN_QUIZ,
    WEIGHTS,
    build_lesson,
    build_texts,
    place_question,
)
from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES

COUNT_QUESTION = "How many objects are there?"


@pytest.fixture(scope="module")
def lessons():
    return [build_lesson(0, index) for index in range(800)]


@pytest.fixture(scope="module")
def items(lessons):
    return [lesson.messages for lesson in lessons]


def kind_of_question(question):
    known = {CAPTION_QUESTION: "caption", CLOSEUP_QUESTION: "closeup", COUNT_QUESTION: "count"}
    starts = {"Where is the ": "where", "Where are the ": "locate", "What is in row": "place"}
    by_start = (kind for start, kind in starts.items() if question.startswith(start))
    return known.get(question) or next(by_start, "words")


def kind_of(messages):
    if messages[0].role == "system":
        return "trajectory"
    first = kind_of_question(messages[0].parts[-1])
    return "quiz" if len(messages) > 2 and first != "words" else first


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


def test_a_lesson_is_a_function_of_seed_and_index(items):
    for index in range(0, 60, 3):
        assert plain(build_lesson(0, index).messages) == plain(items[index])
        assert plain(build_lesson(1, index).messages) != plain(items[index])
    assert len({repr(plain(item)) for item in items}) == len(items)


def test_another_process_builds_the_same_whatever_its_hashes():
    script = (
        "import hashlib; from pixelis.models.base.blend import build_texts;"
        "print(hashlib.sha256(repr(build_texts(3, 40)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_kinds_come_in_their_shares(items):
    counts = collections.Counter(map(kind_of, items))
    for kind, weight in zip(KINDS, WEIGHTS, strict=True):
        # Where a scene holds nothing but like texts there is nothing to locate.
        known = counts[kind] + (counts["where"] if kind == "locate" else 0)
        assert abs(known / len(items) - weight / sum(WEIGHTS)) < 0.05, kind


def test_a_quiz_asks_several_things_about_one_image(items):
    found = [messages for messages in items if kind_of(messages) == "quiz"]
    kinds = collections.Counter()
    for messages in found:
        assert [m.role for m in messages] == ["user", "assistant"] * QUESTIONS_IN_QUIZ
        assert [len(m.images) for m in messages] == [1] + [0] * (2 * QUESTIONS_IN_QUIZ - 1)
        kinds.update(kind_of_question(m.parts[-1]) for m in messages[::2])
    assert set(kinds) == {"place", "where", "count"}
    assert kinds["count"] < 0.1 * kinds.total()


def test_what_a_scene_holds_is_known_beside_the_conversation(lessons):
    for lesson in lessons[:200]:
        image = lesson.messages[lesson.messages[0].role == "system"].images[0]
        if kind_of(lesson.messages) == "closeup":
            assert lesson.held == {}
            continue
        for cell in CELLS:
            assert lesson.held.get(cell, "none") == seen_at(image, cell)


def test_captions_and_places_say_what_is_on_the_pixels(items):
    for image, _, answer in answers(items, "caption")[:40]:
        words = iter(answer.split())
        for cell in CELLS:
            first = next(words)
            said = first if first in ("none", "text") else f"{first} {next(words)}"
            assert said == seen_at(image, cell)
    by_question = {place_question(cell): cell for cell in CELLS}
    places = answers(items, "place")[:400]
    for image, question, answer in places:
        assert answer == seen_at(image, by_question[question])
    assert {answer for *_, answer in places} > {"none", "text"}


def test_where_and_closeup_and_count_are_true(items):
    for image, question, answer in answers(items, "where")[:400]:
        name = question.removeprefix("Where is the ").removesuffix("?")
        _, row, _, col = answer.split()
        assert name == seen_at(image, (int(row) - 1, int(col) - 1))
    for image, _, answer in answers(items, "closeup"):
        assert image.size == (56, 56)
        assert answer == "text" or [*answer.split()] in [[c, s] for c in PALETTE for s in SHAPES]
    for image, _, answer in answers(items, "count"):
        assert int(answer) == sum(seen_at(image, cell) != "none" for cell in CELLS)


def test_located_things_are_where_it_is_said(items):
    found = answers(items, "locate")
    assert max(answer.count(".") for *_, answer in found) == OBJECTS_TO_LOCATE
    for image, question, answer in found:
        names = [n.removeprefix("the ") for n in question[10:-1].split(", ")]
        said = [s.removeprefix("The ") for s in answer.rstrip(".").split(". ")]
        assert [s.split(" is in ")[0] for s in said] == names
        for sentence in said:
            name, place = sentence.split(" is in ")
            _, row, _, col = place.split()
            assert name == seen_at(image, (int(row) - 1, int(col) - 1))


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
