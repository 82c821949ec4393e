"""The comparison of finished trainings: a sentence, a Markdown table, and rows for files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixelis.figures import TrainingHistory, stage_names

# Settings of folders and of resuming, which do not change the training.
LEFT_OUT = ("training.output_dir", "data.path", "data.prep", "exp_name", "resume")
SECTIONS = ("curriculum.", "training.", "model.", "data.")
LONGEST_SETTING = 80  # characters that the table shows
NONE = "–"


@dataclass(frozen=True)
class ComparedTraining:
    """The data of a training that are compared.

    Attributes:
        name: A unique name.
        run_id: Id of the training's run in MLflow.
        link: Address of that run.
        params: Dotted key -> setting, as text.
        metrics: The newest value of each metric.
        history: Its events and evaluations.
    """

    name: str
    run_id: str
    link: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    history: TrainingHistory


def compute_facts(training: ComparedTraining) -> dict[str, Any]:
    """Return fact -> value; facts that a training does not have are left out."""
    history = training.history
    facts: dict[str, Any] = {}
    if history.rules.has_stages and history.events:
        facts["stage reached"] = history.events[-1]["to_stage"]
        for event in history.events:
            if event["kind"] == "advance":
                facts[f"steps to {event['to_stage']}"] = int(event["step"])
    rollbacks = [event for event in history.events if event["kind"] == "rollback"]
    facts["rollbacks"] = len(rollbacks)
    if rollbacks:
        facts["rolled back"] = "; ".join(map(_describe_rollback, rollbacks))
    difficulties = list(dict.fromkeys(name for _, strata in history.strata for name in strata))
    by_difficulty = {
        name: [strata[name] for _, strata in history.strata if name in strata]
        for name in difficulties
    }
    facts |= {f"final {name}": values[-1] for name, values in by_difficulty.items()}
    facts |= {f"best {name}": max(values) for name, values in by_difficulty.items()}
    for name in (*difficulties, "all"):
        measured = {
            f"test {name}": training.metrics.get(f"test/adapter/{name}/answer_accuracy"),
            f"test {name}: gain": training.metrics.get(f"test/gain/{name}"),
        }
        facts |= {fact: value for fact, value in measured.items() if value is not None}
    return facts


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
    facts = [compute_facts(training) for training in trainings]
    names = _fact_names(trainings, facts)
    settings = differing_params(trainings)
    return [
        {
            "run": training.name,
            "run_id": training.run_id,
            **{name.replace(" ", "_"): facts[i].get(name) for name in names},
            **{key: values[i] for key, values in settings.items()},
        }
        for i, training in enumerate(trainings)
    ]


def trainings_markdown(trainings: Sequence[ComparedTraining], *, links: bool = False) -> str:
    """Return a sentence about the furthest training, and a table with a column for each training.

    Args:
        trainings: The trainings.
        links: Whether the names are links to the runs in MLflow.
    """
    facts = [compute_facts(training) for training in trainings]
    heads = [_cell(training.name) for training in trainings]
    if links:
        heads = [f"[{head}]({t.link})" for head, t in zip(heads, trainings, strict=True)]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    for name in _fact_names(trainings, facts):
        rows.append([name, *(_format(each.get(name)) for each in facts)])
    for key, values in differing_params(trainings).items():
        rows.append([f"`{key}`", *(_format(_shorten(value)) for value in values)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    sentence = describe_furthest(trainings)
    return f"{sentence}\n\n{table}" if sentence else table


def describe_furthest(trainings: Sequence[ComparedTraining]) -> str:
    """Return the sentence that names the training that reached the last stage first."""
    order = stage_names([training.history for training in trainings])
    ranks = {}
    for training in trainings:
        facts = compute_facts(training)
        if stage := facts.get("stage reached"):
            ranks[training.name] = (-order.index(stage), facts.get(f"steps to {stage}", 0))
    if not ranks:
        return ""
    best = min(ranks.values())
    winners = [_cell(name) for name, rank in ranks.items() if rank == best]
    return f"Furthest: {' and '.join(winners)} (stage {order[-best[0]]} from step {best[1]})."


def _fact_names(
    trainings: Sequence[ComparedTraining], facts: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the names of all facts: those of the stages in the stages' order, then the others."""
    stages = stage_names([training.history for training in trainings])
    known = [name for each in facts for name in each]
    first = [
        "stage reached",
        *(f"steps to {stage}" for stage in stages),
        "rollbacks",
        "rolled back",
    ]
    groups = ("final ", "best ", "test ")
    rest = [name for group in groups for name in known if name.startswith(group)]
    return [name for name in dict.fromkeys([*first, *rest]) if name in known]


def _format(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.3f}" if isinstance(value, float) else _cell(str(value))


def _shorten(value: str | None) -> str | None:
    if value is None or len(value) <= LONGEST_SETTING:
        return value
    return f"{value[: LONGEST_SETTING - 3]}..."


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
