"""The report of an evaluation as one HTML file: the numbers, then trajectories, worst first.

Questions, answers and generated texts are escaped. The page's content security policy allows only
its own script and no requests. It needs no network, as a file or in a sandbox.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any

from pixelis.data_prep.regions import REFERENCE_COLOUR
from pixelis.evaluation.cards import (
    MAX_QUESTION,
    build_act,
    cut,
    draw_frames,
    render,
    shorten,
    turn_acts,
    turn_calls,
)
from pixelis.evaluation.cases import LOST, MEANINGS, Case, build_cases, worst_first
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.intervals import MIN_EXAMPLES, Score
from pixelis.evaluation.metrics import ALL, TASK_PREFIX, chance_levels, strata
from pixelis.evaluation.tables import (
    P_NOTE,
    format_chance,
    format_p_value,
    format_percent,
    measure_cells,
    shown_groups,
)

COLOURS = {"base": "#b0b7bf", "against": "#E69F00", "adapter": "#0072B2"}
MAX_TURNS = 12  # of one rollout; further turns are a loop


def report_page(
    result: EvaluationResult, *, title: str, about: Mapping[str, str], limit: int, seed: int
) -> str:
    """Return the page's HTML with at most `limit` trajectories, chosen by the seed.

    The facts in `about` are shown above the numbers.
    """
    cases = build_cases(result)
    script = resources.files("pixelis.evaluation").joinpath("page.js").read_text(encoding="utf-8")
    groups = [ALL, *strata(result.adapter.measures)]
    counts = Counter(case.verdict for case in cases)
    return render(
        "page.html.jinja",
        title=title,
        about=about,
        rows=_rows(result),
        colours=[COLOURS[label] for label in result.models],
        models=list(result.models),
        compared=list(result.comparisons),
        measures=[(group, list(measure_cells(result, group))) for group in groups],
        p_note=P_NOTE,
        min_examples=MIN_EXAMPLES,
        format_p_value=format_p_value,
        has_base=result.base is not None,
        cards=[_card(case) for case in worst_first(cases, limit, seed)],
        counts={verdict: counts[verdict] for verdict in MEANINGS},
        num_cases=len(cases),
        meanings=MEANINGS,
        groups=list(dict.fromkeys(case.example.difficulty for case in cases)),
        tasks=sorted({case.example.task for case in cases}),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the rows of the table: difficulties, all, tasks; each with scores and gains."""
    chances = chance_levels(result.examples)
    return [
        {
            "name": group.removeprefix(TASK_PREFIX),
            "kind": "all" if group == ALL else "task" if "/" in group else "group",
            "n": result.adapter.accuracy[group].num,
            "scores": [
                (score, format_percent(score))
                for evaluation in result.models.values()
                for score in [evaluation.accuracy[group]]
            ],
            "gains": [
                (pair, format_percent(pair.gain, "+"), _direction(pair.gain))
                for compared in result.comparisons.values()
                for pair in [compared[group]]
            ],
            "chance": format_chance(chances, group),
            "chance_level": chances.get(group),
        }
        for group in shown_groups(result)
    ]


def _direction(gain: Score) -> str:
    """Return `up` or `down` if the interval of a gain leaves 0 out, else nothing."""
    low, high = gain.interval or (0.0, 0.0)
    return "up" if low > 0 else "down" if high < 0 else ""


def _card(case: Case) -> dict[str, Any]:
    """Return the page's data of one case: short texts, and images as `data:` URLs.

    The model's calls are marked by the number of their turn, the reference's by R1, R2, ...
    """
    example, rollout, base = case.example, case.rollout, case.base
    turns, others = rollout.turns[:MAX_TURNS], base.turns[:MAX_TURNS] if base else ()
    steps = [(f"R{number}", step) for number, step in enumerate(example.trajectory, 1)]
    reference = [(number, step.arguments, step.result, REFERENCE_COLOUR) for number, step in steps]
    return {
        "verdict": case.verdict,
        "group": example.difficulty,
        "task": example.task,
        "id": shorten(example.id, 40),
        "question": cut(example.question, MAX_QUESTION),
        "truth": cut(example.ground_truth),
        "answer": cut(rollout.answer),
        "base_answer": cut(base.answer) if base else None,
        "why": case.why,
        "frames": draw_frames(example, [*([] if case.is_right else reference), *turn_calls(turns)]),
        "acts": turn_acts(turns),
        # The base's calls are shown only if the base alone was right.
        "base_frames": draw_frames(example, turn_calls(others)) if case.verdict == LOST else [],
        "base_acts": turn_acts(others),
        "reference": [
            build_act(number, step.thought, step.operation, step.arguments, step.result)
            for number, step in steps
        ],
        "more_turns": max(0, len(rollout.turns) - MAX_TURNS),
    }
