"""The report of an evaluation as one HTML file: the numbers, then trajectories, worst first.

Questions, answers and generated texts are escaped. The page's content security policy allows only
its own script and no requests. It needs no network, as a file or in a sandbox.
"""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from PIL import Image

from pixelis.data.chat import prose_of
from pixelis.data.example import Example
from pixelis.data_prep.regions import (
    CALL_COLOUR,
    REFERENCE_COLOUR,
    LabelledRegion,
    draw_regions,
    find_regions,
)
from pixelis.evaluation.cases import LOST, MEANINGS, Case, build_cases, shorten, worst_first
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.intervals import MIN_EXAMPLES
from pixelis.evaluation.metrics import ALL, TASK_PREFIX, Comparison, chance_levels, strata
from pixelis.evaluation.tables import (
    P_NOTE,
    format_chance,
    format_p_value,
    format_percent,
    grid_note,
    grid_of,
    is_significant,
    loss_lines,
    measure_cells,
    shown_groups,
)
from pixelis.evaluation.turns import CALL, Rollout

COLOURS = {"base": "#b0b7bf", "against": "#E69F00", "adapter": "#0072B2"}
MAX_TEXT = 400  # characters
MAX_QUESTION = 1200
MAX_FRAMES = 4
FRAME_SIDE = 210  # pixels
CROP_SIDE = 132
MAX_TURNS = 12  # of one rollout; further turns are a loop
QUALITY = 82  # of WebP

# The label, arguments, result and colour of a call that is marked on the images.
MarkedCall = tuple[str, Any, Mapping[str, Any] | None, str]


def report_page(
    result: EvaluationResult, *, title: str, about: Mapping[str, str], limit: int, seed: int
) -> str:
    """Return the page's HTML with at most `limit` trajectories, chosen by the seed.

    The facts in `about` are shown above the numbers.
    """
    cases = build_cases(result)
    sources = resources.files("pixelis.evaluation")
    template, style, script = (
        sources.joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html.jinja", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    groups = [ALL, *strata(result.adapter.measures)]
    grid = grid_of(result)
    counts = Counter(case.verdict for case in cases)
    return environment.from_string(template).render(
        title=title,
        about=about,
        rows=_rows(result, shown_groups(result), _leaves_0_out),
        cells=_rows(grid, list(grid.adapter.accuracy), is_significant),
        losses=loss_lines(grid),
        colours=[COLOURS[label] for label in result.models],
        models=list(result.models),
        compared=list(result.comparisons),
        measures=[(group, list(measure_cells(result, group))) for group in groups],
        p_note=P_NOTE,
        grid_note=grid_note(grid),
        min_examples=MIN_EXAMPLES,
        format_p_value=format_p_value,
        has_base=result.base is not None,
        cards=[_card(case) for case in worst_first(cases, limit, seed)],
        counts={verdict: counts[verdict] for verdict in MEANINGS},
        num_cases=len(cases),
        meanings=MEANINGS,
        groups=list(dict.fromkeys(case.example.difficulty for case in cases)),
        tasks=sorted({case.example.task for case in cases}),
        style=style,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _rows(
    result: EvaluationResult, groups: Sequence[str], is_clear: Callable[[Comparison], bool]
) -> list[dict[str, Any]]:
    """Return a row with scores and gains for each group; gains that are clear get a colour."""
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
                (pair, format_percent(pair.gain, "+"), direction if is_clear(pair) else "")
                for compared in result.comparisons.values()
                for pair in [compared[group]]
                for direction in ["up" if pair.gain.value > 0 else "down"]
            ],
            "chance": format_chance(chances, group),
            "chance_level": chances.get(group),
        }
        for group in groups
    ]


def _leaves_0_out(pair: Comparison) -> bool:
    """Return whether the interval of a gain leaves 0 out."""
    low, high = pair.gain.interval or (0.0, 0.0)
    return low > 0 or high < 0


def _card(case: Case) -> dict[str, Any]:
    """Return the page's data of one case: short texts, and images as `data:` URLs.

    The model's calls are marked by the number of their turn, the reference's by R1, R2, ...
    """
    example, rollout, base = case.example, case.rollout, case.base
    steps = [(f"R{number}", step) for number, step in enumerate(example.trajectory, 1)]
    reference = [(number, step.arguments, step.result, REFERENCE_COLOUR) for number, step in steps]
    return {
        "verdict": case.verdict,
        "group": example.difficulty,
        "task": example.task,
        "id": shorten(example.id, 40),
        "question": _cut(example.question, MAX_QUESTION),
        "truth": _cut(example.ground_truth),
        "answer": _cut(rollout.answer),
        "base_answer": _cut(base.answer) if base else None,
        "why": case.why,
        "frames": _frames(example, [*([] if case.is_right else reference), *_calls(rollout)]),
        "acts": _turns(rollout),
        # The base's calls are shown only if the base alone was right.
        "base_frames": _frames(example, _calls(base)) if base and case.verdict == LOST else [],
        "base_acts": _turns(base) if base else [],
        "reference": [
            _act(number, step.thought, step.operation, step.arguments, step.result)
            for number, step in steps
        ],
        "more_turns": max(0, len(rollout.turns) - MAX_TURNS),
    }


def _calls(rollout: Rollout) -> list[MarkedCall]:
    return [
        (str(number), turn.arguments, turn.result, CALL_COLOUR)
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
            LabelledRegion(region, label, colour)
            for label, arguments, result, colour in calls
            for region in find_regions(arguments, result, index + 1)
        ]
        side = {"side": FRAME_SIDE} if count > 1 else {}
        label = f"frame {index + 1} of {last + 1}" if count > 1 else ""
        frames.append((label, _data_url(draw_regions(example.images[index], marks, **side))))
    return frames


def _turns(rollout: Rollout) -> list[dict[str, Any]]:
    acts = []
    for number, turn in enumerate(rollout.turns[:MAX_TURNS], 1):
        act = _act(
            str(number), prose_of(turn.text), turn.operation, turn.arguments, turn.result or {}
        )
        if turn.image is not None:
            act["crop"] = _data_url(draw_regions(turn.image, (), side=CROP_SIDE))
        acts.append(act | {"answer": _cut(turn.answer)})
    return acts


def _act(
    number: str, thought: str, operation: str, arguments: Any, result: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the template shows of a turn, or of a step of the reference."""
    inner = _value(arguments)
    if isinstance(arguments, Mapping):
        inner = ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())
    return {
        "number": number,
        "thought": _cut(thought),
        "call": _cut(f"{operation}({inner})") if operation else "",
        "result": _cut(", ".join(f"{name}: {_value(value)}" for name, value in result.items())),
        "failed": "error" in result,
        "crop": "",
        "answer": None,
    }


def _value(value: Any) -> str:
    return shorten(value, 80)


def _cut(text: str | None, limit: int = MAX_TEXT) -> str | None:
    """Return a text with a note where it is cut off."""
    if text is None or len(text.strip()) <= limit:
        return text and text.strip()
    return f"{text.strip()[:limit]} ... [{len(text)} characters]"


def _data_url(image: Image.Image) -> str:
    """Return an image as a `data:` URL in WebP."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
