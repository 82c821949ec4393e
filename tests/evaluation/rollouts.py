"""Builders of cases: an example about a sign, rollouts of it and their result."""

from PIL import Image

from pixelis.evaluation.evaluate import EvaluationResult, summarise
from pixelis.evaluation.metrics import paired_comparison
from pixelis.evaluation.turns import (
    ANSWER,
    ANSWERED,
    CALL,
    ERROR,
    MAX_OPERATIONS,
    NO_ANSWER,
    Rollout,
)
from tests.evaluation.handmade import make_example, make_step, make_turn


def call(operation="READ_TEXT", arguments=None, result=None, image=None, text="Look."):
    arguments = {"bbox": [10, 10, 30, 30]} if arguments is None else arguments
    result = {"text": "A9"} if result is None else result
    fields = {"operation": operation, "arguments": arguments, "result": result, "image": image}
    return make_turn(CALL, text=text, **fields)


def answer(value):
    return make_turn(ANSWER, text=f"So it is.\n<answer>{value}</answer>", answer=value)


def noise(text="hm", ended=True):
    return make_turn(ERROR, text=text, ended=ended, num_new_tokens=7)


def rollout(*turns, example_id="e", **more):
    last = turns[-1]
    outcome = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}[last.kind]
    return Rollout(example_id, turns=turns, answer=last.answer, outcome=outcome, **more)


def example(example_id="e", truth="A9", steps=None, **more):
    steps = ({"bbox": [10, 10, 30, 30]},) if steps is None else steps
    found = {"text": truth}
    fields = {
        "id": example_id,
        "task": "text_extraction",
        "question": "What does the sign say?",
        "images": (Image.new("RGB", (100, 80), "white"),),
        "trajectory": tuple(make_step("READ_TEXT", s, found, thought="There.") for s in steps),
        "conclusion": f"The sign says {truth}.",
    }
    return make_example(truth=truth, **fields | more)


def result(examples, adapter, base=None, against=None):
    """Return the evaluation of these rollouts with all numbers."""
    rollouts = {"base": base, "against": against, "adapter": adapter}
    rollouts = {name: each for name, each in rollouts.items() if each is not None}
    models = {name: summarise(each, examples) for name, each in rollouts.items()}
    del rollouts["adapter"]
    comparisons = {
        name: paired_comparison(each, adapter, examples) for name, each in rollouts.items()
    }
    return EvaluationResult(tuple(examples), models, comparisons)
