"""Outcomes of trainings side by side: a sentence, a Markdown table, and rows for files."""

from collections.abc import Sequence
from typing import Any

from pixelis.experiments.compare.outcome import Training, compute_outcome, differing_params
from pixelis.figures import stage_names

LONGEST = 80  # letters of a setting that are shown
NONE = "–"


def as_rows(trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """A row for each training, all with the same keys."""
    outcomes = [compute_outcome(training) for training in trainings]
    facts = _facts(trainings, outcomes)
    settings = differing_params(list(trainings))
    return [
        {
            "run": training.name,
            "run_id": training.run_id,
            **{fact.replace(" ", "_"): outcome.get(fact) for fact in facts},
            **{key: values[place] for key, values in settings.items()},
        }
        for place, (training, outcome) in enumerate(zip(trainings, outcomes, strict=True))
    ]


def as_markdown(trainings: Sequence[Training], *, links: bool = False) -> str:
    """A sentence that says which went furthest, and a table with a column for each training.

    Args:
        trainings: what is compared.
        links: whether the names lead to the runs in MLflow.
    """
    outcomes = [compute_outcome(training) for training in trainings]
    names = [_cell(training.name) for training in trainings]
    if links:
        pairs = zip(names, trainings, strict=True)
        names = [f"[{name}]({training.link})" for name, training in pairs]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    for fact in _facts(trainings, outcomes):
        rows.append([fact, *(_show(outcome.get(fact)) for outcome in outcomes)])
    for key, values in differing_params(list(trainings)).items():
        rows.append([f"`{key}`", *(_show(_short(value)) for value in values)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sentence = furthest(trainings)
    return f"{sentence}\n\n{table}" if sentence else table


def furthest(trainings: Sequence[Training]) -> str:
    """The sentence that says which training reached the last stage, and reached it first."""
    order = stage_names([training.course for training in trainings])
    ranked = []
    for training in trainings:
        outcome = compute_outcome(training)
        if stage := outcome.get("stage reached"):
            ranked.append((-order.index(stage), outcome.get(f"steps to {stage}", 0), training.name))
    if not ranked:
        return ""
    best = min(ranked)
    winners = [_cell(name) for *place, name in ranked if tuple(place) == best[:2]]
    stage, step = order[-best[0]], best[1]
    return f"Furthest: {' and '.join(winners)} (stage {stage} from step {step})."


def _facts(trainings: Sequence[Training], outcomes: Sequence[dict[str, Any]]) -> list[str]:
    """All facts: those of the stages in the stages' order, whoever has them, then the others."""
    stages = stage_names([training.course for training in trainings])
    steps = [f"steps to {stage}" for stage in stages]
    known = [fact for outcome in outcomes for fact in outcome]
    first = ["stage reached", *steps, "rollbacks", "rolled back"]
    groups = ("final ", "best ", "test ")
    rest = [fact for group in groups for fact in known if fact.startswith(group)]
    return [fact for fact in dict.fromkeys([*first, *rest]) if fact in known]


def _show(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.3f}"
    return _cell(str(value))


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."


def _cell(text: str) -> str:
    """Words that a cell of a Markdown table holds."""
    return text.replace("|", "\\|").replace("\n", " ")
