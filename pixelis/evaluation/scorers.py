"""Scorers of rollouts for `mlflow.genai.evaluate`, over the traces or the table of an evaluation.

They are plain functions whose parameters MLflow fills by name, so nothing here needs MLflow:

    from mlflow.genai.scorers import scorer
    from pixelis.evaluation.scorers import SCORERS, rows_of

    mlflow.genai.evaluate(data=rows_of(result), scorers=[scorer(each) for each in SCORERS])

`evaluate` itself does not use `mlflow.genai.evaluate`, which predicts row by row although rollouts
need batches, has neither intervals nor paired comparisons, and keeps a trace of every row. Instead
`evaluate` adds its verdicts to its own traces as assessments.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pixelis.data.example import Example
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.matching import answer_type, answers_match, score_answer, truths
from pixelis.evaluation.turns import ANSWERED


def rows_of(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the adapter's rollouts as MLflow's rows: inputs, outputs, expectations; no images."""
    rows = []
    for example, rollout in zip(result.examples, result.adapter.rollouts, strict=True):
        expectations: dict[str, Any] = {"truth": example.ground_truth}
        expectations["answer_type"] = answer_type(example)
        if others := truths(example)[1:]:  # MLflow refuses an empty expectation
            expectations["alternatives"] = list(others)
        inputs = {"id": example.id, "question": example.question, "task": example.task}
        outputs: dict[str, Any] = {"answer": rollout.answer, "outcome": rollout.outcome}
        outputs |= {"num_operations": rollout.num_operations, "num_failed": rollout.num_failed}
        rows.append({"inputs": inputs, "outputs": outputs, "expectations": expectations})
    return rows


def answer_is_right(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], expectations: Mapping[str, Any]
) -> bool:
    """Return whether the answer is right (`matching.answers_match`)."""
    return answers_match(outputs["answer"], _example(inputs, expectations))


def answer_score(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], expectations: Mapping[str, Any]
) -> float:
    """Return the score of the answer, in [0, 1] (`matching.score_answer`)."""
    return score_answer(outputs["answer"], _example(inputs, expectations))


def has_answered(outputs: Mapping[str, Any]) -> bool:
    """Return whether the rollout ended in an answer."""
    return bool(outputs["outcome"] == ANSWERED)


def operations_ran(outputs: Mapping[str, Any]) -> float:
    """Return the share of operations without an error; 1 if there were no operations."""
    total = outputs["num_operations"]
    return 1 - outputs["num_failed"] / total if total else 1.0


SCORERS: Sequence[Callable[..., bool | float]] = (
    answer_is_right,
    answer_score,
    has_answered,
    operations_ran,
)


def _example(inputs: Mapping[str, Any], expectations: Mapping[str, Any]) -> Example:
    """Return an example with only the fields that matching reads."""
    kept = {key: expectations.get(key) for key in ("answer_type", "alternatives")}
    return Example(
        id=str(inputs["id"]),
        task=str(inputs["task"]),
        sample_type="",
        question="",
        images=(),
        trajectory=(),
        conclusion="",
        answer="",
        ground_truth=str(expectations["truth"]),
        provenance={key: value for key, value in kept.items() if value is not None},
    )
