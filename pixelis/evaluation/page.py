"""The report of an evaluation as one HTML file: the numbers, then trajectories, worst first.

Questions, answers and whatever a model says are escaped, and the page's own policy lets it run
its one script, load nothing and send nothing. It needs no network, as a file or in a sandbox.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from pixelis.evaluation.cards import Card, build_card, num_bytes
from pixelis.evaluation.cases import MEANINGS, Case, build_cases, worst_first
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.groups import strata
from pixelis.evaluation.measures_report import evaluated_models, measures_of
from pixelis.evaluation.metrics import ALL, TASK_PREFIX
from pixelis.evaluation.report import P_NOTE, result_rows, shown_p

MAX_BYTES = 12_000_000  # of the trajectories' images
COLOURS = {"base": "#b0b7bf", "against": "#E69F00", "adapter": "#0072B2"}


def report_page(
    result: EvaluationResult, *, title: str, about: Mapping[str, str], limit: int, seed: int
) -> str:
    """The page, in UTF-8.

    Args:
        result: of `evaluate_model`.
        title: of the page.
        about: what was evaluated on what, shown above the numbers.
        limit: trajectories at most; fewer where their images are too many bytes.
        seed: of the choice among trajectories of one kind.
    """
    cases = build_cases(result)
    cards = _within_bytes([build_card(case) for case in worst_first(cases, limit, seed)])
    sources = resources.files("pixelis.evaluation")
    script = sources.joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        sources.joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        title=title,
        about=about,
        rows=_rows(result),
        models=list(_models(result)),
        compared=[label for label, _ in _compared(result)],
        measures=_measures(result),
        p_note=P_NOTE,
        has_base=result.base is not None,
        cards=cards,
        counts=_counts(cases),
        num_cases=len(cases),
        shown=Counter(card.verdict for card in cards),
        meanings=MEANINGS,
        groups=list(dict.fromkeys(case.example.difficulty for case in cases)),
        tasks=sorted({case.example.task for case in cases}),
        style=sources.joinpath("page.css").read_text(encoding="utf-8"),
        script=script,
        digest=digest,
    )


def _within_bytes(cards: Sequence[Card]) -> list[Card]:
    kept, total = [], 0
    for card in cards:
        total += num_bytes(card)
        if total > MAX_BYTES:
            break
        kept.append(card)
    return kept


def _counts(cases: Sequence[Case]) -> dict[str, int]:
    found = Counter(case.verdict for case in cases)
    return {verdict: found[verdict] for verdict in MEANINGS}


def _rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """The rows of the table: difficulties, all, tasks; each with a name, scores and gains."""
    shown = {ALL, *(example.difficulty for example in result.examples)}
    shown |= {TASK_PREFIX + example.task for example in result.examples}
    rows = []
    for row in result_rows(result):
        name = str(row["group"])
        if name not in shown:
            continue  # the others are in the run's table
        kind = "task" if name.startswith(TASK_PREFIX) else "all" if name == ALL else "group"
        scores = [
            (colour, [100 * row[f"{label}_{key}"] for key in ("accuracy", "low", "high")])
            for label, colour in _models(result).items()
        ]
        gains = [
            {
                **{key: 100 * row[f"{key}{end}"] for key in ("gain", "gain_low", "gain_high")},
                **{key: row[f"{key}{end}"] for key in ("gained", "lost")},
                "p": shown_p(row[f"p_value{end}"]),
            }
            for _, end in _compared(result)
        ]
        told = {"name": name.removeprefix(TASK_PREFIX), "kind": kind, "n": row["n"]}
        rows.append({**told, "scores": scores, "gains": gains})
    return rows


def _models(result: EvaluationResult) -> dict[str, str]:
    """Label -> colour of its bar."""
    return {label: COLOURS[label] for label in evaluated_models(result)}


def _compared(result: EvaluationResult) -> list[tuple[str, str]]:
    """What the adapter is compared with, and how the names of these columns end."""
    pairs = [("base", "", result.comparison)]
    pairs += [("against", "_over_against", result.against_comparison)]
    return [(label, end) for label, end, comparison in pairs if comparison is not None]


def _measures(result: EvaluationResult) -> list[tuple[str, list[tuple[str, int, list[str]]]]]:
    """Measures of all examples and of every difficulty; the others are in the run's table."""
    names = [ALL, *strata(result.adapter.measures)]
    tables = [(name, list(measures_of(result, name))) for name in names]
    return [(name, table) for name, table in tables if table]
