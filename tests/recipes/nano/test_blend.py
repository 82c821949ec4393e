import collections
import os
import random
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data_prep.scenes import CELLS, OVERLAP_OFFSET, RADII, SIDE, Item, draw_item
from pixelis.data_prep.tasks.object_counting import MAX_COUNT, MAX_LISTED
from pixelis.operations import execute
from pixelis.operations.pixels import PALETTE, SHAPES, colour_name, grow_region, pixel_array
from recipes.nano.blend import (
    CAPTION_QUESTION,
    CLOSEUP_QUESTION,
    KINDS,
    MAX_STEPS,
    OBJECTS_TO_LOCATE,
    QUESTIONS_ABOUT_FRAMES,
    build_lesson,
    build_texts,
    draw_found,
    found_question,
    frame_question,
    place_question,
)

COUNT_QUESTION = "How many objects are there?"
FRAME_QUESTION = re.compile(r"Where is the (\w+ \w+) in image (\d)\?")
NAMES = {f"{colour} {shape}" for colour in PALETTE for shape in SHAPES}


@pytest.fixture(scope="module")
def lessons():
    return [build_lesson(0, index) for index in range(800)]


@pytest.fixture(scope="module")
def items(lessons):
    return [lesson.messages for lesson in lessons]


def kind_of_question(question):
    if FRAME_QUESTION.fullmatch(question):
        return "frames"
    known = {CAPTION_QUESTION: "caption", CLOSEUP_QUESTION: "closeup", COUNT_QUESTION: "count"}
    starts = {"Where is the ": "where", "Where are the ": "locate", "What is in row": "place"}
    starts |= {"What is ": "beside", "List the ": "found", "By ": "axis"}
    by_start = (kind for start, kind in starts.items() if question.startswith(start))
    return known.get(question) or next(by_start, "words")


def kind_of(messages):
    if messages[0].role == "system":
        return "trajectory"
    first = kind_of_question(messages[0].parts[-1])
    return "quiz" if len(messages) > 2 and first in ("place", "where", "count") else first


def answers(items, kind):
    """Image, question and answer of every turn that asks for this kind of thing."""
    found = []
    for messages in items:
        if kind_of(messages) not in ("trajectory", "frames"):
            (image,) = messages[0].images
            for user, assistant in zip(messages[::2], messages[1::2], strict=True):
                if kind_of_question(user.parts[-1]) == kind:
                    found.append((image, user.parts[-1], assistant.parts[0]))
    return found


@cache
def outlines(cell):
    """Every shape as it may be drawn in a cell, by name, as masks of the whole image."""
    near = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    far = [(d * x, d * y) for x, y in ((1, 0), (0, 1)) for d in (-OVERLAP_OFFSET, OVERLAP_OFFSET)]
    masks = {}
    for shape in SHAPES:
        drawn = [Item(cell, "red", shape, size, offset=o) for size in RADII for o in near]
        drawn += [Item(cell, "red", shape, offset=o) for o in far]
        canvases = [Image.new("L", (SIDE, SIDE)) for _ in drawn]
        for item, canvas in zip(drawn, canvases, strict=True):
            draw_item(ImageDraw.Draw(canvas), item, 1)
        masks[shape] = [np.asarray(canvas) > 0 for canvas in canvases]
    return masks


def explains(outline, shown, others):
    """Whether a whole shape is what is shown of it and what others cover."""
    return not (shown & ~outline).any() and not (outline & ~shown & ~others).any()


def seen_at(image, cell):
    """What is to be seen in a cell, as an answer names it; another shape may cover its edge."""
    item, pixels = Item(cell), pixel_array(image)
    read = execute("READ_TEXT", {"bbox": item.box}, [image]).result
    if "text" in read:
        return {1: "digit", 2: "text"}[len(read["text"])]
    x, y = item.point["x"], item.point["y"]
    by_colour = {name: (pixels == rgb).all(axis=2) for name, rgb in PALETTE.items()}
    colours = [name for name, mask in by_colour.items() if mask[y, x]]
    if not colours:
        return "none"
    (colour,) = colours
    shown = grow_region(pixels, x, y) & by_colour.pop(colour)
    others = np.any(list(by_colour.values()), axis=0)
    (shape,) = (
        shape
        for shape, drawn in outlines(cell).items()
        if any(explains(outline, shown, others) for outline in drawn)
    )
    return f"{colour} {shape}"


def cell_of(place):
    """The cell of `row 1 column 1`."""
    _, row, _, col = place.split()
    return int(row) - 1, int(col) - 1


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
        "import hashlib; from recipes.nano.blend import build_texts;"
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
    for kind, weight in KINDS.items():
        assert abs(counts[kind] / len(items) - weight / sum(KINDS.values())) < 0.04, kind
    assert set(counts) == set(KINDS)
    for messages in items:
        assert messages[-1].role == "assistant"
        assert all(m.supervised == (m.role == "assistant") for m in messages)


def test_what_a_scene_holds_is_known_beside_the_conversation(lessons):
    names = set()
    for lesson in lessons[:200]:
        kind, images = kind_of(lesson.messages), lesson.messages[0].images
        if kind == "trajectory":
            images = lesson.messages[1].images
        # A close-up shows no place, and in several frames a place holds now this, now that.
        if kind == "closeup" or len(images) > 1:
            assert lesson.contents == {}
            continue
        names.update(lesson.contents.values())
        for cell in CELLS:
            assert lesson.contents.get(cell, "none") == seen_at(images[0], cell)
    assert names == NAMES | {"text", "digit"}


def test_captions_and_places_say_what_is_on_the_pixels(items):
    named = set()
    for image, _, answer in answers(items, "caption")[:60]:
        words = iter(answer.split())
        for cell in CELLS:
            first = next(words)
            said = first if first in ("none", "text", "digit") else f"{first} {next(words)}"
            assert said == seen_at(image, cell)
            named.add(said)
        assert next(words, None) is None
    assert named == NAMES | {"none", "text", "digit"}
    by_question = {place_question(cell): cell for cell in CELLS}
    places = answers(items, "place")[:400]
    for image, question, answer in places:
        assert answer == seen_at(image, by_question[question])
    assert {answer for *_, answer in places} > {"none", "text", "digit"}


def test_where_and_count_are_true(items):
    found = answers(items, "where")[:400]
    for image, question, answer in found:
        name = question.removeprefix("Where is the ").removesuffix("?")
        assert name == seen_at(image, cell_of(answer))
    assert {"Where is the text?", "Where is the digit?"} < {question for _, question, _ in found}
    for image, _, answer in answers(items, "count"):
        assert int(answer) == sum(seen_at(image, cell) != "none" for cell in CELLS)


def test_a_close_up_is_named_by_what_is_in_its_middle(items):
    found = answers(items, "closeup")
    for image, _, answer in found:
        assert image.size == (56, 56)
        if answer in ("text", "digit"):
            assert np.ptp(pixel_array(image), axis=2).max() == 0, "ink has no colour"
        else:
            assert answer in NAMES
            assert colour_name(pixel_array(image)[28, 28]) == answer.split()[0]
    assert {"text", "digit"} < {answer for *_, answer in found}


def test_located_things_are_where_it_is_said(items):
    found = answers(items, "locate")
    assert max(answer.count(".") for *_, answer in found) == OBJECTS_TO_LOCATE
    for image, question, answer in found:
        names = [n.removeprefix("the ") for n in question[10:-1].split(", ")]
        said = [s.removeprefix("The ") for s in answer.rstrip(".").split(". ")]
        assert [s.split(" is in ")[0] for s in said] == names
        for sentence in said:
            name, place = sentence.split(" is in ")
            assert name == seen_at(image, cell_of(place))


def test_what_is_beside_a_thing_is_named_with_its_place(items):
    found = answers(items, "beside")[:80]
    steps = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
    relations = set()
    for image, question, answer in found:
        relation, name = re.fullmatch(r"What is ([a-z ]+) the ([\w ]+)\?", question).groups()
        (cell,) = [cell for cell in CELLS if seen_at(image, cell) == name]
        row, column = (a + b for a, b in zip(cell, steps[relation], strict=True))
        assert answer == f"row {row + 1} column {column + 1}: {seen_at(image, (row, column))}"
        relations.add(relation)
    assert relations == set(steps)
    beside = {answer.partition(": ")[2] for *_, answer in found}
    assert {"none", "text", "digit"} < beside


def check_list(image, asked, listed, oracles):
    """Everything that is seen is listed in reading order; what is of the class is counted."""
    said, count = [], 0
    seen = [(cell, name) for cell in CELLS if (name := seen_at(image, cell)) != "none"]
    for (row, column), name in seen:
        count += oracles.fits(asked, name)
        verdict = "yes" if oracles.fits(asked, name) else "no"
        said.append(f"row {row + 1} column {column + 1} {name} {verdict} {count}, ")
    if len(seen) > MAX_LISTED:
        said = [each for each in said if " yes " in each]
    assert listed == f"The {asked}: {''.join(said)}no more: {count}."
    return count


def test_what_is_of_a_class_is_listed_and_counted(items, oracles):
    counts = collections.Counter(
        check_list(image, question[len("List the ") : -1], listed, oracles)
        for image, question, listed in answers(items, "found")
    )
    assert set(counts) == set(range(1, MAX_COUNT + 1))


def test_a_list_is_drawn_with_its_picture_and_its_count(oracles):
    rng = random.Random(0)
    for _ in range(20):
        picture, asked, listed, count = draw_found(rng)
        (image,) = picture.draw()
        assert check_list(image, asked, listed, oracles) == count
        assert found_question(asked) == f"List the {asked}."


def test_rows_and_columns_are_those_of_what_the_image_shows(items):
    found = answers(items, "axis")
    assert len(found) > 100
    for image, question, answer in found:
        axis, names = re.fullmatch(r"By (row|column), where are (.*)\?", question).groups()
        listed = dict(pair.split(": ") for pair in answer.removesuffix(".").split(", "))
        assert list(listed) == [name.removeprefix("the ") for name in names.split(", ")]
        places = {seen_at(image, cell): cell for cell in CELLS}
        for name, value in listed.items():
            assert places[name][axis == "column"] + 1 == int(value)


def test_what_is_said_of_frames_is_true_of_the_frame_it_is_said_of(items):
    found = [messages for messages in items if kind_of(messages) == "frames"]
    counts, asked, in_other_places = set(), set(), 0
    for messages in found[:40]:
        assert [m.role for m in messages] == ["user", "assistant"] * QUESTIONS_ABOUT_FRAMES
        frames = messages[0].images
        assert [len(m.images) for m in messages] == [len(frames)] + [0] * (len(messages) - 1)
        assert {frame.size for frame in frames} == {(SIDE, SIDE)}
        counts.add(len(frames))
        seen = [{cell: seen_at(frame, cell) for cell in CELLS} for frame in frames]
        for user, assistant in zip(messages[::2], messages[1::2], strict=True):
            name, number = FRAME_QUESTION.fullmatch(user.parts[-1]).groups()
            assert user.parts[-1] == frame_question(name, int(number))
            asked.add(int(number))
            (place,) = assistant.parts
            places = [cell for cell, said in seen[int(number) - 1].items() if said == name]
            assert places == [cell_of(place)], "it stands there and nowhere else"
            in_other_places += any(frame[cell_of(place)] != name for frame in seen)
    assert counts == {2, 3, 4} and asked == {1, 2, 3, 4}
    assert in_other_places > 20, "the number of the frame matters"


def test_trajectories_are_short_and_right(items):
    found = [m for m in items if kind_of(m) == "trajectory"]
    for messages in found:
        said = [message for message in messages if message.role == "assistant"]
        assert 2 <= len(said) <= MAX_STEPS + 1
        assert all(message.supervised for message in said)
    num_images = {len(messages[1].images) for messages in found}
    assert 1 in num_images and max(num_images) > 1


def test_texts_are_the_same_each_time_and_hold_no_special_token():
    texts = build_texts(0, 30)
    assert build_texts(0, 30) == texts != build_texts(1, 30)
    assert not any("<|" in text for text in texts)
    together = "\n".join(texts)
    for word in ("<tool_call>", "<tool_response>", "<answer>", "Describe every cell.", "assistant"):
        assert word in together
    for word in (" digit", "text", "in image 2?", '{"name": "TRACK_OBJECT"'):
        assert word in together
