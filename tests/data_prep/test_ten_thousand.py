"""Ten thousand examples, each looked through: no wrong answer is ever a target."""

import hashlib
import json
import re
from collections import Counter

import pytest

from pixelis.data.chat import example_messages
from pixelis.data.example import SAMPLE_TYPES
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.tasks import TASKS
from pixelis.operations import execute

TOTAL = 10_000
# Tracking takes ten times as long as the others.
TRACKED_PER_TYPE = 104
JUDGEMENTS = ("outcome_negative", "trap_perceptual", "trap_logical")


def kinds():
    others = (TOTAL - TRACKED_PER_TYPE * len(SAMPLE_TYPES)) // (5 * (len(TASKS) - 1))
    for task in TASKS:
        for sample_type in SAMPLE_TYPES:
            for index in range(TRACKED_PER_TYPE if task == "temporal_tracking" else others):
                yield task, sample_type, index


def text_of(message):
    return "".join(part for part in message.parts if isinstance(part, str))


def targets_are_right(example, oracles):
    """The one answer that is supervised is the truth, and no other text holds one."""
    answer = oracles.asked(example).answer
    assert example.answer == example.ground_truth == answer
    messages = example_messages(example)
    said = "\n".join(text_of(message) for message in messages if message.supervised)
    assert re.findall(r"<answer>(.*?)</answer>", said) == [answer]
    assert said.endswith(f"<answer>{answer}</answer>")
    unsaid = "\n".join(text_of(message) for message in messages if not message.supervised)
    assert "<answer>" not in unsaid


def steps_replay(example, oracles):
    """Every operation gives its recorded result again, and its image pixel by pixel."""
    for step in example.trajectory:
        again = execute(step.operation, step.arguments, example.images)
        assert again.result == step.result
        assert (again.image is None) == (step.image is None)
        if again.image is not None:
            assert again.image.size == step.image.size
            assert again.image.tobytes() == step.image.tobytes()


def planted_steps_are_not_supervised(example, oracles):
    """A wrong look stands in self-corrections alone, once, without loss, and is mended at once."""
    steps = example.trajectory
    wrong = [number for number, step in enumerate(steps) if not step.supervised]
    assert len(wrong) == (example.sample_type == "self_correction")
    # A closer look shows that nothing is there; all other operations have to say so.
    silent = [number for number in wrong if steps[number].operation == "ZOOM_IN"]
    assert [n for n, step in enumerate(steps) if "error" in step.result] + silent == wrong
    turns = [m for m in example_messages(example) if m.role == "assistant"]
    assert [n for n, message in enumerate(turns) if not message.supervised] == wrong
    for number in wrong:
        call = json.dumps(dict(steps[number].arguments))
        assert not any(m.supervised and call in text_of(m) for m in turns)
        assert turns[number + 1].supervised
        assert text_of(turns[number + 1]).startswith("Wrong place. ")


def flawed_solutions_stand_in_the_question(example, oracles):
    """What is to be judged is in the question, and the answer to it is not the proposed one."""
    assert ("flawed" in example.provenance) == (example.sample_type in JUDGEMENTS)
    assert ("\n" in example.question) == (example.sample_type in JUDGEMENTS)
    if example.sample_type not in JUDGEMENTS:
        return
    flawed = example.provenance["flawed"]
    answer = oracles.asked(example).answer
    assert flawed["answer"] != answer
    assert example.question.endswith(f"\nAnswer: {flawed['answer']}\nIs it right?")
    right = {json.dumps(dict(step.arguments)) for step in example.trajectory}
    said = [text_of(m) for m in example_messages(example) if m.supervised]
    assert said[0].startswith("No, ")
    moved = 0
    for step in flawed["steps"]:
        line = f"{step['thought']} {step['operation']} {json.dumps(step['arguments'])} -> "
        assert line + json.dumps(step["result"]) in example.question
        assert not any(line in turn for turn in said)
        if json.dumps(step["arguments"]) not in right:
            moved += 1
            assert not any(json.dumps(step["arguments"]) in turn for turn in said)
    assert moved == (example.sample_type == "trap_perceptual")


def images_are_those_of_the_digest(example, oracles):
    digest = hashlib.sha256()
    for image in example.images:
        digest.update(repr(image.size).encode() + image.tobytes())
    assert example.provenance["image_digest"] == digest.hexdigest()
    assert len(example.images) == 1 or example.task == "temporal_tracking"


def paths_are_on_the_images(example, oracles):
    """Everything stands where provenance has it, in each image."""
    for thing in example.provenance["objects"]:
        if "text" in thing:
            continue
        row, column = thing["cell"]
        places = [oracles.cell_of(place) for place in thing.get("path", ())] or [(row, column)]
        for image, (row, column) in zip(example.images, places, strict=True):
            seen = oracles.colour_at(image, 28 * column + 14, 28 * row + 14)
            assert seen == thing["name"].split()[0]


CHECKS = (
    targets_are_right,
    steps_replay,
    planted_steps_are_not_supervised,
    flawed_solutions_stand_in_the_question,
    images_are_those_of_the_digest,
    paths_are_on_the_images,
)


def faults_of(example, oracles):
    """The checks that an example does not pass, each with what it says."""
    faults = {}
    for check in CHECKS:
        try:
            check(example, oracles)
        except (AssertionError, ValueError, KeyError) as error:
            faults[check] = repr(error)[:300]
    return faults


@pytest.fixture(scope="module")
def looked_through(oracles):
    """Of each example its kind, id, content and faults; the images are not kept."""
    found = []
    for task, sample_type, index in kinds():
        example = generate_example(seed=10, index=index, task=task, sample_type=sample_type)
        digest = example.provenance["image_digest"]
        content = (task, sample_type, example.question, digest)
        found.append(((task, sample_type, index), example.id, content, faults_of(example, oracles)))
    return found


def test_there_are_ten_thousand_of_every_task_and_type(looked_through):
    assert len(looked_through) == TOTAL
    counts = Counter(kind[:2] for kind, *_ in looked_through)
    assert set(counts) == {(task, sample_type) for task in TASKS for sample_type in SAMPLE_TYPES}
    assert min(counts.values()) >= 100


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_example_fails(looked_through, check):
    failed = [(kind, faults[check]) for kind, _, _, faults in looked_through if check in faults]
    assert failed == []


def test_an_id_stands_for_one_content_and_a_content_for_one_id(looked_through):
    ids = {identity for _, identity, _, _ in looked_through}
    contents = {content for _, _, content, _ in looked_through}
    pairs = {(identity, content) for _, identity, content, _ in looked_through}
    assert len(ids) == len(contents) == len(pairs) == TOTAL
