"""Every task on drawn scenes: its answers against an oracle, its steps, its questions."""

import dataclasses
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.data.example import chance_level
from pixelis.data_prep.annotated_image import AnnotatedImage, Instance, Location
from pixelis.data_prep.scenes import CELLS, RADII, Item, Scene
from pixelis.data_prep.sources.drawn import DrawnScenes, location_of, to_picture
from pixelis.data_prep.tasks import TASK_WEIGHTS, TASKS
from pixelis.data_prep.tasks.geometric_comparison import MIN_RATIO
from pixelis.data_prep.tasks.object_counting import MAX_COUNT, MAX_LISTED
from pixelis.data_prep.tasks.proposal import (
    call_on_box,
    direction,
    list_names,
    result_area,
    segment,
    zoom_in,
)
from pixelis.operations import OPERATIONS
from pixelis.operations.pixels import COLOURS, SHAPES, draw_shape

every_task = pytest.mark.parametrize("task", TASKS)
# Pixels of a small shape: none has more, and no medium one has fewer.
SMALL = {"circle": 97, "square": 121, "triangle": 61, "diamond": 61, "cross": 72}


def proposed(task, seed, of=None):
    rng = random.Random(f"{task}:{seed}")
    return TASKS[task](rng, DrawnScenes().picture(rng, of or task))


def proposals(task, count=150):
    found = [each for seed in range(count) if (each := proposed(task, seed))]
    # A task may refuse an image, but not most of them.
    assert len(found) > count / 3
    return found


def of_form(pairs, form):
    found = [(example, asked) for example, asked in pairs if asked.form == form]
    assert len(found) > 40
    return found


def right_steps(example):
    return [step for step in example.trajectory if step.supervised]


def operations_of(example):
    return [step.operation for step in right_steps(example)]


# Every task


def test_every_task_has_a_weight_for_its_difficulty():
    assert set(TASK_WEIGHTS) == set(TASKS)
    assert all(0 <= weight <= 1 for weight in TASK_WEIGHTS.values())


@every_task
def test_the_answer_is_the_oracle_s_and_every_phrasing_occurs(understood, oracles, task):
    pairs = understood(task)
    assert [example.answer for example, _ in pairs] == [asked.answer for _, asked in pairs]
    for form, phrasings in oracles.FORMS[task].items():
        assert len(set(phrasings)) >= 5
        assert {asked.phrasing for _, asked in pairs if asked.form == form} == set(phrasings)


@every_task
def test_images_of_every_task_may_be_given_to_every_task_and_empty_ones_suit_none(task):
    for other in TASKS:
        for seed in range(10):
            proposal = proposed(task, seed, of=other)
            assert proposal is None or proposal.answer
    empty = AnnotatedImage(instances=(), draw=lambda: (), free=tuple(map(location_of, CELLS)))
    assert all(TASKS[task](random.Random(seed), empty) is None for seed in range(30))


@every_task
def test_a_proposal_has_valid_calls_and_different_wrong_answers(task):
    for proposal in proposals(task):
        assert proposal.answer not in proposal.wrong_answers
        assert len(set(proposal.wrong_answers)) == len(proposal.wrong_answers) > 0
        assert 1 <= len(proposal.calls) <= 5
        for call in proposal.calls:
            assert OPERATIONS[call.operation].accepts(call.arguments)
            assert call.thought.strip() == call.thought != ""
        cells = [instance.cell for instance in proposal.picture.instances]
        assert set(cells) <= set(CELLS) and 1 <= len(set(cells)) == len(cells) <= 15


def place(thing):
    row, column = thing["cell"]
    return f"row {row + 1} column {column + 1}"


def values_of(things, values):
    pairs = zip(things, values, strict=True)
    return ", ".join(f"{thing['name']}: {value}" for thing, value in pairs)


def by_side(word, things):
    """The furthest of things to a side, and the sentence up to it."""
    axis = 1 if word in ("leftmost", "rightmost") else 0
    pick = min if word in ("leftmost", "topmost") else max
    furthest = pick(things, key=lambda thing: thing["cell"][axis])["name"]
    values = values_of(things, [thing["cell"][axis] + 1 for thing in things])
    return furthest, f"The {word} by {('row', 'column')[axis]}, {values}, is the {furthest}"


SIDES = {"left of": "leftmost", "right of": "rightmost", "above": "topmost", "below": "bottommost"}


def conclude_size(things, gaps, answer):
    areas = values_of(things, [thing["area"] for thing in things])
    return f"The {gaps['word']} by area, {areas}, is the {answer}."


def conclude_relation(things, gaps, answer):
    return f"{by_side(SIDES[gaps['relation']], things)[1]}, so {answer}."


def conclude_direction(things, gaps, answer):
    first, second = (f"{thing['name']} in {place(thing)}" for thing in things)
    return f"The {first}, the {second}, so {answer}."


def conclude_common(things, gaps, answer):
    colours, shapes = zip(*(thing["name"].split() for thing in things), strict=True)
    same = ["same" if a == b else "different" for a, b in (colours, shapes)]
    colours, shapes = " and ".join(colours), " and ".join(shapes)
    return f"Colors {colours}: {same[0]}, shapes {shapes}: {same[1]}, so {answer}."


def conclude_cover(things, gaps, answer):
    areas = [thing["area"] for thing in things]
    (there,) = [thing["area"] for thing in things if thing["name"] == answer]
    return f"By area, {values_of(things, areas)}, there: {there}, in front is the {answer}."


def conclude_mover(things, gaps, answer):
    paths = [(thing["path"][0], thing["path"][-1]) for thing in things]
    said = ", ".join(
        f"the {thing['name']} from {a} to {b} {'stays' if a == b else 'moves'}"
        for thing, (a, b) in zip(things, paths, strict=True)
    )
    return f"T{said[1:]}, so the {answer}."


def from_to(things):
    (path,) = [thing["path"] for thing in things]
    return f"From {path[0]} to {path[-1]}"


CONCLUSIONS = {
    **dict.fromkeys(
        ("kind", "place of attribute", "neighbour"),
        lambda things, gaps, answer: f"Its {gaps.get('asked', 'color')} is {answer}.",
    ),
    "count": lambda things, gaps, answer: f"There are no more, so {answer}.",
    "size": conclude_size,
    "extreme": lambda things, gaps, answer: f"{by_side(gaps['word'], things)[1]}.",
    "relation": conclude_relation,
    **dict.fromkeys(
        ("single", "beside", "all"), lambda things, gaps, answer: f'It says "{answer}".'
    ),
    "direction": conclude_direction,
    "common": conclude_common,
    "cover": conclude_cover,
    "place": lambda things, gaps, answer: f"{from_to(things)}.",
    "heading": lambda things, gaps, answer: f"{from_to(things)}, so it moves: {answer}.",
    "mover": conclude_mover,
}


@every_task
def test_the_conclusion_states_what_the_answer_follows_from(understood, task):
    for example, asked in understood(task):
        form = asked.form
        if (task, form) == ("attribute_recognition", "place"):
            form = "place of attribute"
        said = CONCLUSIONS[form](asked.instances, asked.gaps, example.answer)
        assert example.conclusion == said


# Form of a question -> the number of answers that it allows, where it lists none.
OPTIONS = {
    **{"count": 5, "relation": 2, "direction": 4, "common": 3, "cover": 2, "heading": 5},
    "place": 16,
}


@every_task
def test_the_number_of_answers_that_a_question_allows(understood, oracles, task):
    for example, asked in understood(task):
        gaps = asked.gaps
        if "names" in gaps:
            expected = len(oracles.listed(gaps["names"]))
        elif task == "attribute_recognition":
            expected = len(SHAPES if gaps.get("asked") == "shape" else COLOURS)
        elif task == "text_extraction":
            expected = 10 if gaps["word"] == "digit" and len(asked.instances) == 1 else 0
        else:
            expected = OPTIONS[asked.form]
        assert example.provenance["num_options"] == expected
        options = max(1, expected - 1) if "flawed" in example.provenance else expected
        assert chance_level(example.provenance) == (1 / options if expected else 0)


def test_a_chance_level_is_not_known_without_a_number_of_answers():
    for num in (None, "4", 2.0, True, -1):
        assert chance_level({"num_options": num}) is None
    shown = [chance_level({"num_options": num, "flawed": {}}) for num in (0, 1, 2, 4)]
    assert shown == [0, 1, 1, 1 / 3]  # the answer that is shown is wrong
    assert chance_level({}) is None


# Attributes


@pytest.fixture(scope="module")
def attributes(understood):
    return understood("attribute_recognition")


def test_small_objects_are_zoomed_into_and_a_neighbour_is_segmented_first(attributes):
    for example, asked in attributes:
        (target,) = asked.instances
        used = [step.operation for step in example.trajectory]
        assert ("ZOOM_IN" in used) == (target["area"] == SMALL[target["name"].split()[1]])
        used = operations_of(example)
        assert ("SEGMENT_OBJECT_AT" in used) == (asked.form == "neighbour")
        if asked.form == "neighbour":
            assert used[0] == "SEGMENT_OBJECT_AT"
            assert f"The {asked.gaps['anchor']} is in " in example.trajectory[0].thought


# Counting


def list_found(example, asked, oracles):
    """Everything in reading order with the count so far; of many things those that count alone."""
    things = sorted(example.provenance["objects"], key=lambda thing: thing["cell"])
    things = things if len(things) <= MAX_LISTED else asked.instances
    said, count = f"The {asked.gaps['kind']}: ", 0
    for thing in sorted(things, key=lambda thing: thing["cell"]):
        fits = oracles.fits(asked.gaps["kind"], thing["name"])
        count += fits
        said += f"{place(thing)} {thing['name']} {'yes' if fits else 'no'} {count}, "
    return f"{said}no more: {count}. "


def test_a_count_follows_from_the_segmented_objects(understood, oracles):
    pairs = understood("object_counting")
    for example, asked in pairs:
        results = [step.result for step in example.trajectory if "error" not in step.result]
        assert len({tuple(result["bbox"]) for result in results}) == int(example.answer)
        assert {step.operation for step in example.trajectory} == {"SEGMENT_OBJECT_AT"}
        objects = sorted((each["box"], each["area"]) for each in asked.instances)
        assert sorted((result["bbox"], result["area"]) for result in results) == objects
        if example.sample_type == "positive":
            for number, step in enumerate(example.trajectory, 1):
                found = list_found(example, asked, oracles) if number == 1 else ""
                (named,) = [t for t in asked.instances if t["box"] == step.result["bbox"]]
                assert step.thought == f"{found}Number {number}: {named['name']}, {place(named)}."
    assert {example.answer for example, _ in pairs} == {str(n) for n in range(1, MAX_COUNT + 1)}
    kinds = {asked.gaps["kind"] for _, asked in pairs}
    assert {"red objects", "blue objects", "circles", "squares", "crosses"} <= kinds


# Sizes


@pytest.fixture(scope="module")
def sizes(understood):
    return understood("geometric_comparison")


def whole_area(instance):
    """The pixels of an object, covered ones included; only large shapes cover each other."""
    if "occluded" not in instance:
        return instance["area"]
    canvas = Image.new("L", (40, 40), 0)
    shape = instance["name"].split()[1]
    draw_shape(ImageDraw.Draw(canvas), shape, 20, 20, RADII["large"], 1)
    return int(np.asarray(canvas).sum())


def test_a_size_follows_from_the_measured_areas_by_a_clear_margin(sizes):
    for example, asked in sizes:
        areas = [step.result["area"] for step in right_steps(example)]
        assert areas == [instance["area"] for instance in asked.instances]
        pick = {"largest": max, "smallest": min}[asked.gaps["word"]]
        best = areas.index(pick(areas))
        assert asked.instances[best]["name"] == example.answer
        for other in areas[:best] + areas[best + 1 :]:
            assert max(other, areas[best]) >= MIN_RATIO * min(other, areas[best])
        # No object counts as smaller because another covers a part of it.
        whole = {instance["name"]: whole_area(instance) for instance in asked.instances}
        assert whole[example.answer] == pick(whole.values())
    assert any("occluded" in each for _, asked in sizes for each in asked.instances)


def test_the_answer_s_position_in_the_question_is_no_hint(sizes):
    positions = [
        [each["name"] for each in asked.instances].index(example.answer) for example, asked in sizes
    ]
    assert set(positions) == {0, 1, 2, 3}
    assert 0.25 < positions.count(0) / len(positions) < 0.55
    assert {asked.gaps["word"] for _, asked in sizes} == {"largest", "smallest"}
    assert {len(asked.instances) for _, asked in sizes} == {2, 3, 4}


# Positions


@pytest.fixture(scope="module")
def positions(understood):
    return understood("spatial_reasoning")


def word_of(asked):
    return asked.gaps["relation" if asked.form == "relation" else "word"]


def test_relations_are_right_half_of_the_time_and_every_word_occurs(positions, oracles):
    answers = [example.answer for example, _ in of_form(positions, "relation")]
    assert 0.3 < answers.count("yes") / len(answers) < 0.7
    assert {word_of(asked) for _, asked in positions} == set(oracles.ORDER)
    assert {len(asked.instances) for _, asked in positions} == {2, 3, 4}


# Relations


@pytest.fixture(scope="module")
def relations(understood):
    return understood("relationship_detection")


def test_the_object_in_front_is_the_one_found_where_the_two_meet(relations):
    covers = of_form(relations, "cover")
    for example, asked in covers:
        first, second, meeting = (step.result for step in right_steps(example))
        assert [first["bbox"], second["bbox"]] == [each["box"] for each in asked.instances]
        assert first["bbox"] != second["bbox"] and meeting in (first, second)
        assert example.answer == asked.instances[0 if meeting == first else 1]["name"]
    named_first = sum(asked.instances[0]["name"] == example.answer for example, asked in covers)
    assert 0.3 < named_first / len(covers) < 0.7


def test_objects_of_one_area_are_not_asked_which_covers_the_other(relations):
    for _, asked in of_form(relations, "cover"):
        first, second = (thing["area"] for thing in asked.instances)
        assert first != second


def test_every_direction_and_every_shared_property_occurs(relations):
    directions = {example.answer for example, _ in of_form(relations, "direction")}
    assert directions == {"left of", "right of", "above", "below"}
    shared = [example.answer for example, _ in of_form(relations, "common")]
    assert set(shared) == {"color", "shape", "nothing"}
    assert shared.count("nothing") < 0.7 * len(shared)


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (30, 0, "right of"),
        (-30, 15, "left of"),
        (3, 30, "below"),
        (0, -14, "above"),
        (0, -13.5, ""),
        (30, 15.5, ""),
        (-20, 20, ""),
        (0, 0, ""),
    ],
)
def test_a_direction_needs_distance_and_one_axis(dx, dy, expected):
    box = [10, 20, 38, 48]
    moved = [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy]
    assert direction(moved, box, 14) == expected


# Movement


@pytest.fixture(scope="module")
def movements(understood):
    return understood("temporal_tracking")


def test_a_path_is_the_cell_of_an_object_in_each_image(movements, oracles):
    for example, _ in movements:
        objects = example.provenance["objects"]
        paths = [[oracles.cell_of(name) for name in each["path"]] for each in objects]
        for instance, path in zip(objects, paths, strict=True):
            assert list(path[0]) == instance["cell"]
            for image, (row, column) in zip(example.images, path, strict=True):
                colour = oracles.colour_at(image, 28 * column + 14, 28 * row + 14)
                assert colour == instance["name"].split()[0]
            # Straight on, or not at all.
            steps = {(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:], strict=False)}
            assert len(steps - {(0, 0)}) <= 1
            assert steps <= {(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)}
        for cells in zip(*paths, strict=True):
            assert len(set(cells)) == len(cells), "only free cells are moved to"
        assert example.provenance["moves"] == sum(path[0] != path[-1] for path in paths) > 0


def test_objects_are_tracked_through_every_image_along_their_path(movements, oracles):
    for example, asked in movements:
        assert set(operations_of(example)) == {"TRACK_OBJECT"}
        for instance, step in zip(asked.instances, right_steps(example), strict=True):
            row, column = instance["cell"]
            assert step.arguments["frames"] == list(range(1, len(example.images) + 1))
            assert step.arguments["bbox"][:2] == [28 * column, 28 * row]
            for box, name in zip(step.result["boxes"], instance["path"], strict=True):
                row, column = oracles.cell_of(name)
                assert abs(box[0] - 28 * column) <= 6 and abs(box[1] - 28 * row) <= 6


def test_every_heading_and_number_of_images_occurs(movements):
    headings = {example.answer for example, _ in of_form(movements, "heading")}
    assert headings == {"left", "right", "up", "down", "not at all"}
    assert {len(example.images) for example, _ in movements} == {2, 3, 4}
    places = of_form(movements, "place")
    assert any(len(set(asked.instances[0]["path"])) == 1 for _, asked in places)


def test_images_in_which_nothing_moves_are_not_asked_about():
    still = Scene((Item((0, 0), "red", "circle"), Item((2, 1), "blue", "cross")), 5)
    for picture in (to_picture(still), to_picture(still, later=[still])):
        for seed in range(20):
            assert TASKS["temporal_tracking"](random.Random(seed), picture) is None


# Texts


@pytest.fixture(scope="module")
def texts(understood):
    return understood("text_extraction")


def test_an_answer_is_what_was_read(texts):
    for example, asked in texts:
        results = [step.result for step in example.trajectory]
        read = [result["text"] for result in results if "text" in result]
        assert example.answer == " ".join(read)
        for instance in asked.instances:
            if instance["name"] == "digit":
                assert instance["text"] in list("0123456789")
            else:
                assert len(instance["text"]) == 2
        if asked.form == "beside":
            assert operations_of(example) == ["SEGMENT_OBJECT_AT", "ZOOM_IN", "READ_TEXT"]
        else:
            assert set(operations_of(example)) == {"READ_TEXT"}
        if asked.form == "all" and example.sample_type == "positive":
            boxes = [step.arguments["bbox"] for step in example.trajectory]
            cells = [(y // 28, x // 28) for x, y, _, _ in boxes]
            assert cells == sorted(cells) == [tuple(each["cell"]) for each in asked.instances]
    for form in ("single", "beside", "all"):
        words = {asked.gaps["word"] for _, asked in texts if asked.form == form}
        assert words == {"text", "digit"}


@pytest.mark.parametrize("text", ["AA", "7", "A7"])
def test_wrong_readings_are_wrong_and_not_empty(text):
    picture = to_picture(Scene((Item((1, 1), text=text),), 3))
    for seed in range(40):
        proposal = TASKS["text_extraction"](random.Random(seed), picture)
        if proposal is not None:
            assert proposal.answer == text
            assert proposal.wrong_answers and not {text, ""} & set(proposal.wrong_answers)
            assert all(wrong == wrong.strip() for wrong in proposal.wrong_answers)


def test_images_without_texts_or_without_a_neighbour_are_not_asked_about():
    bare = to_picture(Scene((Item((0, 0), "red", "circle"),), 3))
    lonely = to_picture(Scene((Item(CELLS[0], text="A7"), Item(CELLS[-1], "red", "cross")), 3))
    for seed in range(20):
        assert TASKS["text_extraction"](random.Random(seed), bare) is None
        proposal = TASKS["text_extraction"](random.Random(seed), lonely)
        assert proposal is None or "beside" not in proposal.question and len(proposal.calls) == 1


# Calls and sentences of a proposal

LOCATION = Location("row 2 column 3", (56, 28, 84, 56), (70, 42))
CIRCLE = Instance("red circle", "circle", LOCATION, (59, 31, 82, 54), 413, (3, 2), "red")
BOX = [56, 28, 84, 56]


@pytest.mark.parametrize(
    ("call", "operation", "arguments"),
    [
        (segment(CIRCLE, "a"), "SEGMENT_OBJECT_AT", {"x": 70, "y": 42}),
        (call_on_box("GET_PROPERTIES", CIRCLE, "a"), "GET_PROPERTIES", {"bbox": BOX}),
        (zoom_in(CIRCLE.location, "a"), "ZOOM_IN", {"bbox": BOX, "factor": 2}),
        # Without an outline it is zoomed into instead.
        (
            segment(dataclasses.replace(CIRCLE, outlined=False), "a"),
            "ZOOM_IN",
            {"bbox": BOX, "factor": 2},
        ),
    ],
)
def test_a_call_is_about_the_location_of_its_instance(call, operation, arguments):
    assert (call.operation, call.arguments) == (operation, arguments)
    assert (call.thought, call.location) == ("a", LOCATION)


@pytest.mark.parametrize(("side", "factor"), [(160, 2), (161, 1)])
def test_large_boxes_are_not_enlarged(side, factor):
    location = Location("here", (0, 0, side, 20), (80, 10))
    assert zoom_in(location, "a").arguments["factor"] == factor


def test_sentences_and_areas():
    others = [dataclasses.replace(CIRCLE, name=name) for name in ("blue cross", "green square")]
    assert segment(CIRCLE).thought == "The red circle is in row 2 column 3."
    assert list_names([CIRCLE, others[0]]) == "the red circle or the blue cross"
    assert list_names([CIRCLE, *others]) == "the red circle, the blue cross or the green square"
    assert result_area({"bbox": [1, 2, 5, 9], "area": 20}) == 20
    assert result_area({"bbox": [1, 2, 5, 9]}) == 28
