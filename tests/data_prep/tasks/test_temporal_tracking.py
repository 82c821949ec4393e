import random

import pytest

from pixelis.data_prep.scenes import Item, Scene
from pixelis.data_prep.sources.drawn import to_picture
from pixelis.data_prep.tasks.temporal_tracking import HEADING, MOVER, PLACE, heading, propose


@pytest.fixture(scope="module")
def mine(understood):
    return understood("temporal_tracking")


def right_steps(example):
    return [step for step in example.trajectory if step.supervised]


def test_the_answer_is_the_truth_of_the_scene(mine):
    for example, asked in mine:
        assert example.answer == asked.answer


def test_a_path_is_where_the_thing_stands_in_each_image(mine, oracles):
    for example, _ in mine:
        for thing in example.provenance["objects"]:
            assert len(thing["path"]) == len(example.images)
            assert list(oracles.cell_of(thing["path"][0])) == thing["cell"]
            for image, place in zip(example.images, thing["path"], strict=True):
                row, column = oracles.cell_of(place)
                colour = oracles.colour_at(image, 28 * column + 14, 28 * row + 14)
                assert colour == thing["name"].split()[0]


def test_what_is_asked_about_is_followed_through_every_image(mine):
    for example, asked in mine:
        steps = right_steps(example)
        assert {step.operation for step in steps} == {"TRACK_OBJECT"}
        every = list(range(1, len(example.images) + 1))
        assert all(step.arguments["frames"] == every for step in steps)
        starts = [[28 * column, 28 * row] for row, column in (t["cell"] for t in asked.instances)]
        assert [step.arguments["bbox"][:2] for step in steps] == starts


def test_the_boxes_that_were_found_are_on_the_path(mine, oracles):
    for example, asked in mine:
        for thing, step in zip(asked.instances, right_steps(example), strict=True):
            for box, place in zip(step.result["boxes"], thing["path"], strict=True):
                row, column = oracles.cell_of(place)
                assert abs(box[0] - 28 * column) <= 6 and abs(box[1] - 28 * row) <= 6


def test_the_answer_follows_from_the_boxes(mine):
    for example, asked in mine:
        ends = [(s.result["boxes"][0], s.result["boxes"][-1]) for s in right_steps(example)]
        moves = [(last[0] - first[0], last[1] - first[1]) for first, last in ends]
        moved = [max(abs(dx), abs(dy)) >= 14 for dx, dy in moves]
        if asked.form == "mover":
            assert moved.count(True) == 1
            assert example.answer == asked.instances[moved.index(True)]["name"]
        elif asked.form == "place":
            x1, y1, x2, y2 = ends[0][1]
            row, column = (y1 + y2) // 2 // 28 + 1, (x1 + x2) // 2 // 28 + 1
            assert example.answer == f"row {row} column {column}"
        else:
            ((dx, dy),) = moves
            across = abs(dx) > abs(dy)
            way = ("right" if dx > 0 else "left") if across else ("down" if dy > 0 else "up")
            assert example.answer == (way if moved[0] else "not at all")


def test_movers_go_straight_over_cells_that_are_free(mine, oracles):
    for example, _ in mine:
        things = example.provenance["objects"]
        paths = [[oracles.cell_of(place) for place in thing["path"]] for thing in things]
        for path in paths:
            steps = {(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:], strict=False)}
            assert len(steps - {(0, 0)}) <= 1
            assert steps <= {(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)}
        for cells in zip(*paths, strict=True):
            assert len(set(cells)) == len(cells)
        moved = sum(path[0] != path[-1] for path in paths)
        assert example.provenance["moves"] == moved > 0


@pytest.mark.parametrize("phrasings", [PLACE, HEADING, MOVER])
def test_every_phrasing_occurs(mine, phrasings):
    assert len(set(phrasings)) >= 5
    assert {asked.phrasing for _, asked in mine} >= set(phrasings)


def test_every_heading_and_number_of_images_occurs(mine):
    headings = {example.answer for example, asked in mine if asked.form == "heading"}
    assert headings == {"left", "right", "up", "down", "not at all"}
    assert {len(example.images) for example, _ in mine} == {2, 3, 4}
    still = [a for _, a in mine if a.form == "place" and len(set(a.instances[0]["path"])) == 1]
    assert still, "what stays is asked about too"


def test_a_heading_in_words():
    assert heading((0, 0, 28, 28), (56, 2, 84, 30), 14) == "right"
    assert heading((56, 56, 84, 84), (56, 0, 84, 28), 14) == "up"
    assert heading((0, 0, 28, 28), (2, 1, 30, 29), 14) == "not at all"


def test_a_picture_in_which_nothing_moves_is_not_asked():
    still = Scene((Item((0, 0), "red", "circle"), Item((2, 1), "blue", "cross")), 5)
    for picture in (to_picture(still), to_picture(still, later=[still])):
        assert all(propose(random.Random(seed), picture) is None for seed in range(20))
