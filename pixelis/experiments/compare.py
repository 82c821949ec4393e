"""The comparison of finished trainings: a sentence, a Markdown table, and rows for files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.evaluation.intervals import Score
from pixelis.evaluation.metrics import ALL
from pixelis.evaluation.tables import format_percent
from pixelis.figures import TrainingHistory, stage_names

# Settings of folders and of resuming, which do not change the training.
LEFT_OUT = ("training.output_dir", "data.path", "data.prep", "exp_name", "resume")
SECTIONS = ("curriculum.", "training.", "model.", "data.")
LONGEST_SETTING = 80  # characters that the table shows
NONE = "–"


@dataclass(frozen=True)
class ComparedTraining:
    """The data of a training that are compared."""

    name: str  # unique
    run_id: str
    link: str  # address of the run in MLflow
    params: Mapping[str, str]  # dotted key -> setting, as text
    tests: Mapping[str, Mapping[str, Any]]  # group of test examples -> row of results
    history: TrainingHistory


def compute_facts(trainings: Sequence[ComparedTraining]) -> list[dict[str, Any]]:
    """Return fact -> value for each training; what only others have is None.

    Facts of the stages come first, in the stages' order; facts that no training has are left out.
    Results on the test split are scores; the names of all others tell their number of examples.
    """
    stages = stage_names([training.history for training in trainings])
    difficulties = dict.fromkeys(
        name for training in trainings for _, strata in training.history.strata for name in strata
    )
    facts = [_facts_of(training, stages, list(difficulties)) for training in trainings]
    names = dict.fromkeys(name for each in facts for name in each)
    known = [name for name in names if any(each.get(name) is not None for each in facts)]
    return [{name: each.get(name) for name in known} for each in facts]


def _facts_of(
    training: ComparedTraining, stages: Sequence[str], difficulties: Sequence[str]
) -> dict[str, Any]:
    history = training.history
    is_fixed = _normalize(training.params.get("curriculum.enabled")) == "false"
    has_stages = history.rules.has_stages and bool(history.events) and not is_fixed
    rollbacks = [event for event in history.events if event["kind"] == "rollback"]
    advances = {
        event["to_stage"]: int(event["step"])
        for event in history.events
        if event["kind"] == "advance"
    }
    facts: dict[str, Any] = {
        "stage reached": history.events[-1]["to_stage"] if has_stages else None
    }
    for stage in stages:
        facts[f"steps to {stage}"] = advances.get(stage) if has_stages else None
    facts["rollbacks"] = len(rollbacks)
    facts["rolled back"] = "; ".join(map(_describe_rollback, rollbacks)) or None
    by_difficulty = {
        name: [strata[name] for _, strata in history.strata if name in strata]
        for name in difficulties
    }
    measure = f"validation {history.rules.metric.replace('_', ' ')}"
    if most := training.params.get("curriculum.eval_samples_per_difficulty"):
        measure += f" (n <= {most})"
    for name, values in by_difficulty.items():
        facts[f"final {name}: {measure}"] = values[-1] if values else None
    for name, values in by_difficulty.items():
        facts[f"best {name}: {measure}"] = max(values, default=None)
    for name in (*difficulties, ALL):
        row = training.tests.get(name, {})
        facts[f"test {name}: answer accuracy"] = _score(row, "adapter_accuracy", "adapter")
        facts[f"test {name}: gain over the base"] = _score(row, "gain", "gain")
    return facts


def _score(row: Mapping[str, Any], value: str, ends: str) -> Score | None:
    """Return the score in a row of results (`evaluation.tables.result_rows`), if it is there."""
    if value not in row:
        return None
    low, high = row[f"{ends}_low"], row[f"{ends}_high"]
    return Score(row[value], None if low is None else (low, high), row["n"])


def _describe_rollback(event: Mapping[str, Any]) -> str:
    delta = "" if event.get("delta") is None else f" ({event['delta']:+.4f})"
    return f"step {event['step']}: {event.get('reason') or 'no reason given'}{delta}"


def differing_params(trainings: Sequence[ComparedTraining]) -> dict[str, list[str | None]]:
    """Return setting -> its value in each training, where they differ; the curriculum's first."""
    keys = dict.fromkeys(key for training in trainings for key in sorted(training.params))
    rows = {}
    for section in SECTIONS:
        for key in keys:
            values = [_normalize(training.params.get(key)) for training in trainings]
            if key.startswith(section) and key not in LEFT_OUT and len(set(values)) > 1:
                rows[key] = values
    return rows


def _normalize(text: str | None) -> str | None:
    """Return a setting in one form; `mlflow run -P` records it as the user wrote it, quoted."""
    if text is None:
        return None
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
    if text.lower() in ("true", "false", "null", "none"):
        return text.lower().replace("none", "null")
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def trainings_rows(trainings: Sequence[ComparedTraining]) -> list[dict[str, Any]]:
    """Return a row for each training, all with the same keys."""
    settings = differing_params(trainings)
    rows = [
        {
            "run": training.name,
            "run_id": training.run_id,
            **{key: value for name, fact in facts.items() for key, value in _flat(name, fact)},
            **{key: values[i] for key, values in settings.items()},
        }
        for i, (training, facts) in enumerate(zip(trainings, compute_facts(trainings), strict=True))
    ]
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _flat(name: str, fact: Any) -> list[tuple[str, Any]]:
    """Return a fact's columns: a name without spaces; a score also with `_low`, `_high`, `_n`."""
    key = re.sub(r"\W+", "_", name).strip("_")
    if not isinstance(fact, Score):
        return [(key, fact)]
    low, high = fact.ends
    return [(key, fact.value), (f"{key}_low", low), (f"{key}_high", high), (f"{key}_n", fact.num)]


def trainings_markdown(trainings: Sequence[ComparedTraining], *, links: bool = False) -> str:
    """Return a sentence about the furthest training, and a table with a column for each training.

    With `links`, their names are links to the runs in MLflow.
    """
    facts = compute_facts(trainings)
    heads = [_cell(training.name) for training in trainings]
    if links:
        heads = [f"[{head}]({t.link})" for head, t in zip(heads, trainings, strict=True)]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    for name in facts[0]:
        values = [each[name] for each in facts]
        sign = "+" if "gain" in name else ""
        rows.append([_label(name, values), *(_cell(value, sign) for value in values)])
    for key, values in differing_params(trainings).items():
        rows.append([f"`{key}`", *(_cell(_shorten(value)) for value in values)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sentence = describe_furthest(trainings)
    return f"{sentence}\n\n{table}" if sentence else table


def _label(name: str, values: Sequence[Any]) -> str:
    """Return the name of a row, with the unit and the number of examples of its scores."""
    nums = [str(value.num) for value in values if isinstance(value, Score)]
    if not nums:
        return name
    unit = "points" if "gain" in name else "%"
    return f"{name} in {unit} (n = {nums[0] if len(set(nums)) == 1 else ' / '.join(nums)})"


def describe_furthest(trainings: Sequence[ComparedTraining]) -> str:
    """Return the sentence that names the training that reached the last stage first.

    A training with a fixed mix has no stages.
    """
    order = stage_names([training.history for training in trainings])
    ranks = {}
    for training, facts in zip(trainings, compute_facts(trainings), strict=True):
        if stage := facts.get("stage reached"):
            ranks[training.name] = (-order.index(stage), facts.get(f"steps to {stage}") or 0)
    if not ranks:
        return ""
    best = min(ranks.values())
    winners = [_cell(name) for name, rank in ranks.items() if rank == best]
    return f"Furthest: {' and '.join(winners)} (stage {order[-best[0]]} from step {best[1]})."


def _shorten(value: str | None) -> str | None:
    if value is None or len(value) <= LONGEST_SETTING:
        return value
    return f"{value[: LONGEST_SETTING - 3]}..."


def _cell(value: Any, sign: str = "") -> str:
    """Return a value as the cell of a Markdown table."""
    if value is None:
        return NONE
    if isinstance(value, Score):
        return format_percent(value, sign).strip()
    text = f"{value:z.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
