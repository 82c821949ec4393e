import dataclasses
import hashlib
import json
import random

import numpy as np
import pytest

from pixelis.data.images import image_digest
from pixelis.data.store import to_row
from pixelis.data_prep import generate
from pixelis.data_prep.generate import (
    build_example,
    generate_example,
    move_call,
    run_call,
)
from pixelis.data_prep.scenes import CELLS, Item, Scene, render
from pixelis.data_prep.sources.drawn import DrawnScenes, location_of, to_picture
from pixelis.data_prep.tasks import TASKS
from pixelis.data_prep.tasks.proposal import PlannedCall, Proposal
from pixelis.errors import DataError
from pixelis.operations import execute

JUDGEMENTS = ("outcome_negative", "trap_perceptual", "trap_logical")


def of_type(examples, *sample_types):
    found = [example for example in examples if example.sample_type in sample_types]
    assert len(found) == 40 * len(TASKS) * len(sample_types)
    return found


def test_zooms_leave_an_image_and_others_none(examples):
    zoomed = 0
    for example in examples:
        for step in example.trajectory:
            assert (step.image is not None) == (step.operation == "ZOOM_IN")
            zoomed += step.operation == "ZOOM_IN"
    assert zoomed > 50


def test_the_conclusion_says_the_answer(examples):
    for example in examples:
        if example.answer not in ("yes", "no", "nothing", "not at all"):
            assert example.answer in example.conclusion


def looked_at(arguments):
    """The cell that a call looks at."""
    x, y = arguments["bbox"][:2] if "bbox" in arguments else (arguments["x"], arguments["y"])
    return y // 28, x // 28


def test_a_planted_call_says_where_it_looks_and_nothing_is_there(examples):
    for example in of_type(examples, "self_correction"):
        (wrong,) = [step for step in example.trajectory if not step.supervised]
        row, column = looked_at(wrong.arguments)
        assert f"row {row + 1} column {column + 1}" in wrong.thought
        assert [row, column] not in [thing["cell"] for thing in example.provenance["objects"]]
        x1, y1, x2, y2 = location_of((row, column)).box
        crop = np.asarray(example.images[0])[y1:y2, x1:x2].astype(int)
        assert crop.min() > 160 and np.ptp(crop, axis=2).max() == 0


def test_flawed_steps_were_really_run(examples):
    for example in of_type(examples, *JUDGEMENTS):
        for step in example.provenance["flawed"]["steps"]:
            again = execute(step["operation"], step["arguments"], example.images)
            assert again.result == step["result"]


def test_a_verdict_names_what_is_wrong(examples):
    for example in of_type(examples, *JUDGEMENTS):
        flawed = example.provenance["flawed"]
        right = [(s.operation, dict(s.arguments)) for s in example.trajectory]
        given = [(s["operation"], s["arguments"]) for s in flawed["steps"]]
        differing = [
            index
            for index, (mine, theirs) in enumerate(zip(right, given, strict=True), 1)
            if mine != theirs
        ]
        verdict = example.trajectory[0].thought
        if example.sample_type == "trap_perceptual":
            (step,) = differing
            assert verdict.startswith(f"No, step {step} looks at the wrong place. ")
        elif example.sample_type == "trap_logical":
            assert differing == []
            wrong = flawed["answer"]
            assert verdict.startswith(f"No, the steps are right but {wrong} does not follow. ")
        else:
            assert differing == []
            assert verdict.startswith(f"No, {flawed['answer']} is wrong. ")


def test_provenance_holds_source_seed_version_and_images(examples):
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        provenance = example.provenance
        assert (provenance["source"], provenance["seed"]) == ("scenes", 5)
        assert provenance["generator"] == generate.GENERATOR_VERSION == "3"
        digest = hashlib.sha256()
        for image in example.images:
            digest.update(repr(image.size).encode() + image.tobytes())
        assert provenance["image_digest"] == digest.hexdigest()
        assert {"index", "objects", "strokes", "moves"} <= set(provenance)
        json.dumps(provenance)


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_a_function_of_seed_and_index(task):
    for sample_type in ("positive", "trap_perceptual", "self_correction"):
        kind = {"task": task, "sample_type": sample_type}
        first = to_row(generate_example(seed=3, index=8, **kind))
        assert to_row(generate_example(seed=3, index=8, **kind)) == first
        others = [
            generate_example(seed=4, index=8, **kind),
            generate_example(seed=3, index=9, **kind),
        ]
        ids = {first["id"], *(example.id for example in others)}
        assert len(ids) == 3


def test_the_global_random_state_is_neither_read_nor_changed():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = generate_example(seed=0, index=0, task="object_counting", sample_type="trap_logical")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    again = generate_example(seed=0, index=0, task="object_counting", sample_type="trap_logical")
    assert again.id == first.id


@pytest.mark.parametrize(
    ("operation", "arguments", "moved"),
    [
        ("SEGMENT_OBJECT_AT", {"x": 42, "y": 14}, {"x": 14, "y": 98}),
        ("READ_TEXT", {"bbox": [28, 0, 56, 28]}, {"bbox": [0, 84, 28, 112]}),
        (
            "TRACK_OBJECT",
            {"frames": [1, 2], "bbox": [28, 0, 56, 28]},
            {"frames": [1, 2], "bbox": [0, 84, 28, 112]},
        ),
    ],
)
def test_a_moved_call_looks_at_the_other_location_and_says_so(operation, arguments, moved):
    given = dict(arguments)
    call = PlannedCall("It is in row 1 column 2.", operation, arguments, location_of((0, 1)))
    expected = PlannedCall("It is in row 4 column 1.", operation, moved, location_of((3, 0)))
    assert move_call(call, location_of((3, 0))) == expected
    assert call.arguments == given


RED = Item((0, 0), "red", "circle")
LOOK = PlannedCall(
    "The circle is in row 1 column 1.", "GET_PROPERTIES", {"bbox": RED.box}, location_of(RED.cell)
)
PROPOSAL = Proposal(
    picture=to_picture(Scene((RED,), 7)),
    question="What color is the circle?",
    calls=(LOOK,),
    conclusion="Its color is red.",
    answer="red",
    answer_from=lambda results: results[-1].get("color", ""),
    wrong_answers=("blue",),
)


def with_items(proposal, *items):
    return dataclasses.replace(proposal, picture=to_picture(Scene((RED, *items), 7)))


def built(proposal, sample_type="positive"):
    return build_example(
        proposal, rng=random.Random(0), task="made_up", sample_type=sample_type, provenance={"a": 1}
    )


def test_a_proposal_becomes_an_example_with_its_annotations_as_provenance():
    example = built(PROPOSAL)
    image = render(Scene((RED,), 7))
    (step,) = example.trajectory
    assert step == run_call(LOOK, [image])
    assert step.result["color"] == "red"
    assert example.provenance == {
        "a": 1,
        "generator": "3",
        "image_digest": image_digest(image),
        "num_options": 2,
        "objects": [{"name": "red circle", "box": [3, 3, 26, 26], "area": 413, "cell": [0, 0]}],
        "strokes": 0,
        "moves": 0,
    }


def test_a_conclusion_may_depend_on_the_results():
    by_area = dataclasses.replace(
        PROPOSAL, conclusion=lambda results: f"{results[0]['area']}: red."
    )
    assert built(by_area).conclusion == "413: red."


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "blue"},
        {"answer_from": lambda results: ""},
        {"calls": (move_call(LOOK, location_of((1, 1))),)},
        {"calls": (PlannedCall("Look.", "GET_COLOUR", {}, location_of((0, 0))),)},
        {"calls": (move_call(LOOK, location_of((1, 1))), LOOK)},  # the other would be enough
    ],
    ids=["wrong answer", "nothing follows", "empty cell", "unknown operation", "one call fails"],
)
@pytest.mark.parametrize("sample_type", ["positive", "self_correction", "outcome_negative"])
def test_a_proposal_whose_results_and_annotations_disagree_is_dropped(change, sample_type):
    assert built(dataclasses.replace(PROPOSAL, **change), sample_type) is None


def test_a_trap_needs_another_object_to_look_at():
    assert built(PROPOSAL, "trap_perceptual") is None
    assert built(with_items(PROPOSAL, Item((2, 2), "blue", "square")), "trap_perceptual")


def test_where_no_cell_is_empty_the_wrong_call_zooms_into_another_object():
    planted = built(PROPOSAL, "self_correction").trajectory[0]
    assert "error" in planted.result and not planted.supervised
    others = [Item(cell, "blue", "square") for cell in CELLS[1:]]
    planted = built(with_items(PROPOSAL, *others), "self_correction").trajectory[0]
    assert planted.operation == "ZOOM_IN" and planted.image is not None and not planted.supervised


def test_a_planted_call_that_finds_something_becomes_a_zoom():
    # As in a photograph, where a region grows from nearly every point.
    picture = to_picture(Scene((RED, Item((1, 1), "blue", "square")), 7))
    mistaken = dataclasses.replace(picture, free=(location_of((1, 1)),))
    proposal = dataclasses.replace(PROPOSAL, picture=mistaken)
    planted, mended = built(proposal, "self_correction").trajectory
    assert (planted.operation, planted.supervised) == ("ZOOM_IN", False)
    assert planted.arguments["bbox"] == list(location_of((1, 1)).box)
    assert mended.supervised and mended.thought.startswith("Wrong place. ")


def test_a_call_whose_thought_names_no_place_is_not_moved():
    proposal = dataclasses.replace(
        PROPOSAL, calls=(dataclasses.replace(LOOK, thought="Now look."),)
    )
    proposal = with_items(proposal, Item((2, 2), "blue", "square"))
    assert built(proposal) is not None
    assert built(proposal, "self_correction") is None
    assert built(proposal, "trap_perceptual") is None


@pytest.mark.parametrize("sample_type", JUDGEMENTS)
def test_a_judgement_needs_a_wrong_answer(sample_type):
    proposal = with_items(PROPOSAL, Item((2, 2), "blue", "square"))
    assert built(proposal, sample_type) is not None
    assert built(dataclasses.replace(proposal, wrong_answers=()), sample_type) is None


@pytest.mark.parametrize("proposal", [dataclasses.replace(PROPOSAL, answer="blue"), None])
def test_a_task_that_proposes_nothing_valid_is_an_error(monkeypatch, proposal):
    monkeypatch.setitem(generate.TASKS, "object_counting", lambda rng, picture: proposal)
    message = (
        "^the source 'scenes' gave no object_counting example of type positive in 400 tries; "
        r"leave the task out \(tasks\) or add images$"
    )
    with pytest.raises(DataError, match=message):
        generate_example(seed=0, index=0, task="object_counting", sample_type="positive")


def test_another_salt_gives_another_example_and_scenes_are_the_source_by_default():
    kind = {"seed": 2, "index": 1, "task": "object_counting", "sample_type": "positive"}
    plain = generate_example(**kind)
    assert generate_example(**kind, salt=0).id == plain.id
    assert generate_example(**kind, source=DrawnScenes()).id == plain.id
    salted = generate_example(**kind, salt=1)
    assert salted.id != plain.id
    assert salted.provenance["index"] == plain.provenance["index"] == 1
