"""The charts of an evaluation: accuracies, failures, outcomes, confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

from pixelis import figures
from pixelis.evaluation.cases import Case
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.intervals import Score
from pixelis.evaluation.metrics import failure_shares, strata
from pixelis.evaluation.turns import ANSWERED, MAX_OPERATIONS

ENDINGS = {ANSWERED: "wrong answer", MAX_OPERATIONS: "called until the limit"}


def build_charts(
    result: EvaluationResult, cases: Sequence[Case], about: Mapping[str, str]
) -> dict[str, figures.Chart]:
    """Return name -> chart, with the facts in `about` in the titles."""
    charts = {
        "accuracy": figures.accuracy_bars(_accuracies(result)),
        "failures": figures.failure_bars(_failures(result)),
        "outcomes": figures.outcome_bars(_outcomes(cases)),
        "confusion": figures.confusions(_answers(cases)),
    }
    facts = " · ".join(f"{name} {value}" for name, value in about.items())
    return {name: figures.titled(chart, f"{name}: {facts}") for name, chart in charts.items()}


def _accuracies(result: EvaluationResult) -> list[dict[str, Any]]:
    return [
        {"difficulty": name, "model": label, "accuracy": score.value, **_ends(score)}
        for label, evaluation in result.models.items()
        for name in strata(evaluation.accuracy)
        for score in [evaluation.accuracy[name]]
    ]


def _failures(result: EvaluationResult) -> list[dict[str, Any]]:
    return [
        {"failure": kind.replace("_", " "), "model": label, "share": score.value, **_ends(score)}
        for label, evaluation in result.models.items()
        for kind, score in failure_shares(evaluation.rollouts).items()
    ]


def _ends(score: Score) -> dict[str, float | None]:
    return {"low": score.ends[0], "high": score.ends[1], "n": score.num}


def _outcomes(cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [
        {"group": getattr(case.example, by), "kind": _ending(case)}
        for by in ("difficulty", "task")
        for case in cases
    ]


def _ending(case: Case) -> str:
    return "right" if case.is_right else ENDINGS.get(case.rollout.outcome, "no answer")


def _answers(cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [
        {
            "task": case.example.task,
            "truth": case.example.ground_truth,
            "answer": case.rollout.answer,
            "right": case.is_right,
        }
        for case in cases
    ]
