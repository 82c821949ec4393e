"""Builders of cases: an example about a sign, rollouts of it and their result."""

from dataclasses import replace

from PIL import Image

from pixelis.data.example import Example, Step
from pixelis.evaluation.evaluate import EvaluationResult, EvaluationSettings, summarise
from pixelis.evaluation.metrics import paired_comparison
from pixelis.evaluation.turns import (
    ANSWER,
    ANSWERED,
    CALL,
    ERROR,
    MAX_OPERATIONS,
    NO_ANSWER,
    Rollout,
    Turn,
)


def call(operation="READ_TEXT", arguments=None, result=None, image=None, text="Look."):
    arguments = {"bbox": [10, 10, 30, 30]} if arguments is None else arguments
    result = {"text": "A9"} if result is None else result
    return Turn(text, CALL, operation, arguments, None, result, image, 9, True)


def answer(value):
    text = f"So it is.\n<answer>{value}</answer>"
    return Turn(text, ANSWER, "", None, value, None, None, 5, True)


def noise(text="hm", ended=True):
    return Turn(text, ERROR, "", None, None, None, None, 7, ended)


def rollout(*turns, example_id="e", outcome=None, **more):
    last = turns[-1]
    ends = {ANSWER: ANSWERED, CALL: MAX_OPERATIONS, ERROR: NO_ANSWER}
    fields = {"difficulty": "simple", "task": "text_extraction", "sample_type": "positive"} | more
    return Rollout(example_id, turns=turns, answer=last.answer, outcome=ends[last.kind], **fields)


def example(example_id="e", truth="A9", steps=None, **more):
    steps = ({"bbox": [10, 10, 30, 30]},) if steps is None else steps
    fields = {
        "task": "text_extraction",
        "question": "What does the sign say?",
        "difficulty": "simple",
        "images": (Image.new("RGB", (100, 80), "white"),),
    } | more
    return Example(
        id=example_id,
        sample_type="positive",
        trajectory=tuple(Step("There.", "READ_TEXT", each, {"text": truth}) for each in steps),
        conclusion=f"The sign says {truth}.",
        answer=truth,
        ground_truth=truth,
        **fields,
    )


def result(examples, adapter, base=None, against=None):
    """Return the evaluation of these rollouts with all numbers."""
    settings = EvaluationSettings(bootstrap_samples=20)
    adapter_evaluation = summarise(adapter, [], examples, settings)
    made = EvaluationResult(tuple(examples), adapter_evaluation)
    for name, others in (("base", base), ("against", against)):
        if others is not None:
            comparison = "comparison" if name == "base" else "against_comparison"
            pairs = paired_comparison(others, adapter, examples, num_samples=20, seed=0)
            evaluation = summarise(others, [], examples, settings)
            made = replace(made, **{name: evaluation, comparison: pairs})
    return made
