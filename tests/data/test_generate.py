import dataclasses
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from pixelis.data import generate
from pixelis.data.chat import example_messages
from pixelis.data.generate import (
    call_cell,
    generate_example,
    image_digest,
    move_call,
    place_words,
    realise,
    run_call,
)
from pixelis.data.scenes import CELLS, Item, Scene, render
from pixelis.data.store import to_row
from pixelis.data.tasks import TASKS, Call, Draft
from pixelis.operations import execute

JUDGEMENTS = ("outcome_negative", "trap_perceptual", "trap_logical")


def turns(example, *, supervised):
    return [
        "".join(part for part in message.parts if isinstance(part, str))
        for message in example_messages(example)
        if message.supervised == supervised
    ]


def of_type(examples, *sample_types):
    found = [example for example in examples if example.sample_type in sample_types]
    assert len(found) == 200 * len(sample_types)
    return found


def test_replaying_every_step_gives_the_recorded_result(examples):
    for example in examples:
        for step in example.trajectory:
            again = execute(step.operation, step.arguments, example.images)
            assert again.result == step.result
            assert (again.image is None) == (step.image is None)
            assert again.image is None or again.image.tobytes() == step.image.tobytes()


def test_zooms_leave_an_image_and_others_none(examples):
    zoomed = 0
    for example in examples:
        for step in example.trajectory:
            assert (step.image is not None) == (step.operation == "ZOOM_IN")
            zoomed += step.operation == "ZOOM_IN"
    assert zoomed > 50


def test_no_wrong_answer_is_ever_a_target(examples):
    for example in examples:
        assert example.answer == example.ground_truth != ""
        said = "\n".join(turns(example, supervised=True))
        assert re.findall(r"<answer>(.*?)</answer>", said) == [example.ground_truth]
        assert said.endswith(f"<answer>{example.ground_truth}</answer>")
        unsaid = "\n".join(turns(example, supervised=False))
        assert "<answer>" not in unsaid


def test_the_conclusion_says_the_answer(examples):
    for example in examples:
        if example.answer not in ("yes", "no"):
            assert example.answer in example.conclusion


def test_a_self_correction_plants_one_wrong_look_and_mends_it_at_once(examples):
    for example in of_type(examples, "self_correction"):
        steps = example.trajectory
        (planted,) = [index for index, step in enumerate(steps) if not step.supervised]
        wrong, mended = steps[planted], steps[planted + 1]
        assert list(wrong.result) == ["error"]
        assert "error" not in mended.result
        assert mended.operation == wrong.operation and mended.arguments != wrong.arguments
        assert mended.thought.startswith("Wrong place. ")
        # Everything else is right: no error, no other remark.
        for step in steps[:planted] + steps[planted + 1 :]:
            assert "error" not in step.result
        assert sum("Wrong place" in step.thought for step in steps) == 1
        said = [m for m in example_messages(example) if m.role == "assistant"]
        assert [i for i, message in enumerate(said) if not message.supervised] == [planted]


def test_a_planted_look_says_where_it_looks_and_nothing_stands_there(examples):
    for example in of_type(examples, "self_correction"):
        (wrong,) = [step for step in example.trajectory if not step.supervised]
        cell = call_cell(Call(wrong.thought, wrong.operation, wrong.arguments))
        assert place_words(cell) in wrong.thought
        assert list(cell) not in [thing["cell"] for thing in example.provenance["objects"]]


def test_only_self_corrections_hold_an_error_or_an_unsupervised_step(examples):
    for example in examples:
        if example.sample_type != "self_correction":
            assert all(step.supervised for step in example.trajectory)
            assert not any("error" in step.result for step in example.trajectory)


def test_a_judgement_holds_the_flawed_solution_in_its_question_alone(examples):
    for example in of_type(examples, *JUDGEMENTS):
        flawed = example.provenance["flawed"]
        assert flawed["answer"] != example.ground_truth
        _, proposal, *lines = example.question.split("\n")
        assert proposal == "A proposed solution:"
        assert lines[-2:] == [f"Answer: {flawed['answer']}", "Is it right?"]
        assert len(lines) == len(flawed["steps"]) + 2
        for number, (line, step) in enumerate(zip(lines, flawed["steps"], strict=False), 1):
            assert line == (
                f"{number}. {step['thought']} {step['operation']} {json.dumps(step['arguments'])}"
                f" -> {json.dumps(step['result'])}"
            )
        for said in turns(example, supervised=True):
            assert "A proposed solution" not in said and "Is it right?" not in said


def test_other_types_are_asked_a_plain_question(examples):
    for example in of_type(examples, "positive", "self_correction"):
        assert "\n" not in example.question
        assert "flawed" not in example.provenance


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


def test_ids_are_of_the_content(examples):
    assert len({example.id for example in examples}) == len(examples)
    for example in examples[::50]:
        assert example.provenance["image_digest"] == image_digest(example.images[0])
        assert re.fullmatch("[0-9a-f]{16}", example.id)


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


def test_a_digest_is_of_pixels_and_size():
    image = Image.new("RGB", (2, 3), (1, 2, 3))
    assert image_digest(image) == image_digest(image.convert("RGBA"))
    assert image_digest(image) != image_digest(Image.new("RGB", (3, 2), (1, 2, 3)))
    changed = image.copy()
    changed.putpixel((1, 2), (1, 2, 4))
    assert image_digest(image) != image_digest(changed)


@pytest.mark.parametrize(
    ("operation", "arguments", "moved"),
    [
        ("SEGMENT_OBJECT_AT", {"x": 42, "y": 14}, {"x": 14, "y": 98}),
        ("READ_TEXT", {"bbox": [28, 0, 56, 28]}, {"bbox": [0, 84, 28, 112]}),
    ],
)
def test_a_moved_call_looks_at_the_other_cell_and_says_so(operation, arguments, moved):
    call = Call("It is in row 1 column 2.", operation, arguments)
    assert call_cell(call) == (0, 1)
    expected = Call("It is in row 4 column 1.", operation, moved)
    assert move_call(call, (3, 0)) == expected
    assert call.arguments == arguments


RED = Item((0, 0), "red", "circle")
DRAFT = Draft(
    scene=Scene((RED,), 7),
    question="What color is the circle?",
    calls=(Call("The circle is in row 1 column 1.", "GET_PROPERTIES", {"bbox": RED.box}),),
    conclusion="Its color is red.",
    answer="red",
    answer_from=lambda results: results[-1]["color"],
    wrong_answers=("blue",),
)


def realised(draft, sample_type="positive"):
    return realise(
        draft, rng=random.Random(0), task="made_up", sample_type=sample_type, provenance={"a": 1}
    )


def test_a_draft_becomes_an_example_with_its_truth_as_provenance():
    example = realised(DRAFT)
    (step,) = example.trajectory
    assert step == run_call(DRAFT.calls[0], render(DRAFT.scene))
    assert step.result["color"] == "red"
    assert example.provenance == {
        "a": 1,
        "generator": "1",
        "image_digest": image_digest(render(DRAFT.scene)),
        "objects": [{"cell": [0, 0], "name": "red circle", "size": "large", "text": ""}],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "blue"},
        {"answer_from": lambda results: ""},
        {"calls": (Call("Look.", "GET_PROPERTIES", {"bbox": [28, 28, 56, 56]}),)},
        {"calls": (Call("Look.", "GET_COLOUR", {}),)},
    ],
    ids=["answer is not the truth", "nothing follows", "empty cell", "unknown operation"],
)
def test_a_draft_whose_results_and_truth_disagree_is_dropped(change):
    assert realised(dataclasses.replace(DRAFT, **change)) is None


def test_a_trap_needs_another_object_to_look_at():
    assert realised(DRAFT, "trap_perceptual") is None


def test_a_correction_needs_an_empty_cell_to_look_at():
    others = [Item(cell, "blue", "square") for cell in CELLS[1:]]
    assert realised(DRAFT, "self_correction") is not None
    crowded = dataclasses.replace(DRAFT, scene=Scene((RED, *others), 7))
    assert realised(crowded, "self_correction") is None


def test_a_planted_look_must_find_nothing():
    # The box is two cells wide: moved to the one empty cell, it still holds the next one's square.
    others = [Item(cell, "blue", "square", "small") for cell in CELLS[1:] if cell != (1, 1)]
    call = Call("The circle is in row 1 column 1.", "GET_PROPERTIES", {"bbox": [0, 0, 56, 28]})
    draft = dataclasses.replace(DRAFT, scene=Scene((RED, *others), 7), calls=(call,))
    assert realised(draft) is not None
    assert realised(draft, "self_correction") is None


@pytest.mark.parametrize("sample_type", JUDGEMENTS)
def test_a_judgement_needs_a_wrong_answer(sample_type):
    two = Scene((RED, Item((2, 2), "blue", "square")), 7)
    draft = dataclasses.replace(DRAFT, scene=two)
    assert realised(draft, sample_type) is not None
    assert realised(dataclasses.replace(draft, wrong_answers=()), sample_type) is None


def test_a_task_that_proposes_nothing_valid_is_an_error(monkeypatch):
    broken = dataclasses.replace(DRAFT, answer="blue")
    monkeypatch.setitem(generate.TASKS, "object_counting", lambda rng: broken)
    message = "^object_counting/positive gave no valid example in 200 drafts$"
    with pytest.raises(RuntimeError, match=message):
        generate_example(seed=0, index=0, task="object_counting", sample_type="positive")
