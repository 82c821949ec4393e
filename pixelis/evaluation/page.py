"""The report of an evaluation as one HTML file: the numbers, then trajectories, worst first.

Questions, answers and generated texts are escaped. The page's content security policy allows only
its own script and no requests. It needs no network, as a file or in a sandbox.
"""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from PIL import Image

from pixelis.data.chat import CALL_OPEN
from pixelis.data.example import Example
from pixelis.data_prep.regions import (
    REFERENCE_COLOUR,
    LabelledRegion,
    draw_regions,
    find_regions,
)
from pixelis.evaluation.cases import MEANINGS, Case, build_cases, worst_first
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.metrics import ALL, TASK_PREFIX, strata
from pixelis.evaluation.reasons import shorten
from pixelis.evaluation.tables import (
    GAINS,
    P_NOTE,
    format_p_value,
    measure_cells,
    result_rows,
)
from pixelis.evaluation.turns import ANSWER, CALL, Rollout, Turn

MAX_BYTES = 12_000_000  # for the trajectories' images
COLOURS = {"base": "#b0b7bf", "against": "#E69F00", "adapter": "#0072B2"}
MAX_TEXT = 400  # characters
MAX_QUESTION = 1200
MAX_FRAMES = 4
FRAME_SIDE = 210  # pixels
CROP_SIDE = 132
MAX_TURNS = 12  # of one rollout; further turns are a loop
QUALITY = 82  # of WebP

# The fields of a turn, or of a step of the reference, that the template reads.
NO_TURN: dict[str, Any] = {"call": "", "result": "", "failed": False, "crop": "", "answer": None}

# The label, arguments, result and colour of a call that is marked on the images.
MarkedCall = tuple[str, Any, Mapping[str, Any] | None, str]


def report_page(
    result: EvaluationResult, *, title: str, about: Mapping[str, str], limit: int, seed: int
) -> str:
    """Return the page's HTML with at most `limit` trajectories, chosen by the seed.

    There are fewer where their images are more than `MAX_BYTES`. The facts in `about` are shown
    above the numbers.
    """
    cases = build_cases(result)
    cards = _within_bytes([_card(case) for case in worst_first(cases, limit, seed)])
    counts = Counter(case.verdict for case in cases)
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
        models=list(result.models),
        compared=list(result.comparisons),
        measures=_measures(result),
        p_note=P_NOTE,
        has_base=result.base is not None,
        cards=cards,
        counts={verdict: counts[verdict] for verdict in MEANINGS},
        num_cases=len(cases),
        meanings=MEANINGS,
        groups=list(dict.fromkeys(case.example.difficulty for case in cases)),
        tasks=sorted({case.example.task for case in cases}),
        style=sources.joinpath("page.css").read_text(encoding="utf-8"),
        script=script,
        digest=digest,
    )


def _rows(result: EvaluationResult) -> list[dict[str, Any]]:
    """Return the rows of the table: difficulties, all, tasks; each with scores and gains."""
    shown = {ALL, *(example.difficulty for example in result.examples)}
    shown |= {TASK_PREFIX + example.task for example in result.examples}
    rows = []
    for row in result_rows(result):
        name = str(row["group"])
        if name not in shown:
            continue  # the others are in the run's table
        scores = [
            (COLOURS[label], [100 * row[f"{label}_{key}"] for key in ("accuracy", "low", "high")])
            for label in result.models
        ]
        gains = [
            {
                **{key: 100 * row[f"{key}{end}"] for key in ("gain", "gain_low", "gain_high")},
                **{key: row[f"{key}{end}"] for key in ("gained", "lost")},
                "p": format_p_value(row[f"p_value{end}"]),
            }
            for end in (GAINS[label][1] for label in result.comparisons)
        ]
        rows.append(
            {
                "name": name.removeprefix(TASK_PREFIX),
                "kind": "task"
                if name.startswith(TASK_PREFIX)
                else "all"
                if name == ALL
                else "group",
                "n": row["n"],
                "scores": scores,
                "gains": gains,
            }
        )
    return rows


def _measures(result: EvaluationResult) -> list[tuple[str, list[tuple[str, int, list[str]]]]]:
    """Return the measures of all examples and of every difficulty."""
    names = [ALL, *strata(result.adapter.measures)]
    tables = [(name, list(measure_cells(result, name))) for name in names]
    return [(name, table) for name, table in tables if table]


def _within_bytes(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first cards whose images have at most `MAX_BYTES` together."""
    kept, total = [], 0
    for card in cards:
        turns = (*card["acts"], *card["base_acts"])
        frames = (*card["frames"], *card["base_frames"])
        total += sum(len(turn["crop"]) for turn in turns) + sum(len(url) for _, url in frames)
        if total > MAX_BYTES:
            break
        kept.append(card)
    return kept


def _card(case: Case) -> dict[str, Any]:
    """Return the page's data of one case: short texts, and images as `data:` URLs.

    The model's calls are marked by the number of their turn, the reference's by R1, R2, ...
    """
    example, rollout, base = case.example, case.rollout, case.base
    steps = [(f"R{number}", step) for number, step in enumerate(example.trajectory, 1)]
    reference = [(number, step.arguments, step.result, REFERENCE_COLOUR) for number, step in steps]
    return {
        "verdict": case.verdict,
        "meaning": MEANINGS[case.verdict],
        "group": example.difficulty,
        "task": example.task,
        "id": shorten(example.id, 40),
        "question": _cut(example.question, MAX_QUESTION),
        "truth": _cut(example.ground_truth),
        "answer": None if rollout.answer is None else _cut(rollout.answer),
        "base_answer": None if base is None or base.answer is None else _cut(base.answer),
        "has_base": base is not None,
        "why": case.why,
        "frames": _frames(example, [*([] if case.is_right else reference), *_calls(rollout)]),
        "acts": _turns(rollout),
        # The base's calls are shown only if the base alone was right.
        "base_frames": _frames(example, _calls(base)) if base and case.verdict == "lost" else [],
        "base_acts": _turns(base) if base is not None else [],
        "reference": [
            NO_TURN
            | {
                "number": number,
                "thought": _cut(step.thought),
                "call": _call_text(step.operation, step.arguments),
                "result": _result_text(step.result),
                "failed": "error" in step.result,
            }
            for number, step in steps
        ],
        "more_turns": max(0, len(rollout.turns) - MAX_TURNS),
    }


def _calls(rollout: Rollout) -> list[MarkedCall]:
    return [
        (str(number), turn.arguments, turn.result, "")
        for number, turn in enumerate(rollout.turns[:MAX_TURNS], 1)
        if turn.kind == CALL
    ]


def _frames(example: Example, calls: Sequence[MarkedCall]) -> list[tuple[str, str]]:
    """Return labelled images with marked calls, at most `MAX_FRAMES` of the frames."""
    count, last = min(MAX_FRAMES, len(example.images)), len(example.images) - 1
    frames = []
    for position in range(count):
        index = round(position * last / max(1, count - 1))
        marks = [
            LabelledRegion(region, label, colour) if colour else LabelledRegion(region, label)
            for label, arguments, result, colour in calls
            for region in find_regions(arguments, result, index + 1)
        ]
        side = {"side": FRAME_SIDE} if count > 1 else {}
        label = f"frame {index + 1} of {last + 1}" if count > 1 else ""
        frames.append((label, _data_url(draw_regions(example.images[index], marks, **side))))
    return frames


def _turns(rollout: Rollout) -> list[dict[str, Any]]:
    return [_turn(str(number), turn) for number, turn in enumerate(rollout.turns[:MAX_TURNS], 1)]


def _turn(number: str, turn: Turn) -> dict[str, Any]:
    if turn.kind == CALL:
        shown: dict[str, Any] = {
            "thought": _cut(turn.text.partition(CALL_OPEN)[0]),
            "call": _call_text(turn.operation, turn.arguments),
            "result": _result_text(turn.result or {}),
            "failed": "error" in (turn.result or {}),
        }
        if turn.image is not None:
            shown["crop"] = _data_url(draw_regions(turn.image, (), side=CROP_SIDE))
    elif turn.kind == ANSWER:
        thought = turn.text.partition("<answer>")[0]
        shown = {"thought": _cut(thought), "answer": _cut(turn.answer or "")}
    else:
        shown = {"thought": _cut(turn.text), "result": "neither a call nor an answer"}
        shown["failed"] = True
    return NO_TURN | {"number": number} | shown


def _call_text(operation: str, arguments: Any) -> str:
    if not isinstance(arguments, Mapping):
        return _cut(f"{operation}({_short_json(arguments)})")
    inner = ", ".join(f"{name}={_short_json(value)}" for name, value in arguments.items())
    return _cut(f"{operation}({inner})")


def _result_text(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return _cut(f"error: {result['error']}")
    return _cut(", ".join(f"{name}: {_short_json(value)}" for name, value in result.items()))


def _short_json(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 80)


def _cut(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text with a note where it is cut off."""
    text = text.strip()
    return text if len(text) <= limit else f"{text[:limit]} ... [{len(text)} characters]"


def _data_url(image: Image.Image) -> str:
    """Return an image as a `data:` URL in WebP."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
