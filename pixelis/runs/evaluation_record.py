"""Records of an evaluation in its run: tables, metrics, figures, images, traces, a report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data_prep.figures import side_by_side
from pixelis.evaluation.cases import (
    Case,
    build_cases,
    explain,
    spread_evenly,
    verdict_of,
    worst_first,
)
from pixelis.evaluation.charts import build_charts
from pixelis.evaluation.evaluate import (
    ADAPTER,
    AGAINST,
    BASE,
    EvaluationResult,
    EvaluationSettings,
    Progress,
    evaluate_model,
)
from pixelis.evaluation.matching import answers_match
from pixelis.evaluation.page import report_page
from pixelis.evaluation.rollout_store import RolloutStore
from pixelis.evaluation.spans import build_spans, marked_frames
from pixelis.evaluation.tables import (
    accuracy_table,
    as_text,
    grid_of,
    grid_rows,
    grid_table,
    loss_lines,
    measure_rows,
    measures_table,
    result_rows,
    result_values,
)
from pixelis.evaluation.turns import ANSWERED
from pixelis.figures import Chart
from pixelis.files import write_atomic
from pixelis.progress import ProgressBar
from pixelis.runs.evaluation_set import EvaluationSet
from pixelis.runs.live_figures import record_chart
from pixelis.tracking import MlflowRecorder, link_measured, log_trace

FOLDER = "evaluation"
REPORT_FILE = "report.html"
TABLE_ROWS, TABLE_SIDE = 60, 320  # of the table of images
# Of the table of all rollouts: largest side of a picture, and pictures, which are uploaded singly.
SIDE, MAX_PICTURES = 128, 1000
LEFT_OUT = "left out: the table's images are full"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordSettings:
    """The settings for recording single rollouts.

    For titles: `adapter` is its name or address, `curriculum` that of its training. With 0
    trajectories in the report (`num_reported`) none is written; `report_folder` is the folder of
    the user's copy; `step` is that of the metrics.
    """

    adapter: str
    base: str
    seed: int
    num_traces: int
    num_reported: int
    report_folder: Path
    curriculum: str = ""
    step: int = 0


def evaluate_and_record(
    recorder: MlflowRecorder,
    model: Any,
    encoder: Encoder,
    evaluation_set: EvaluationSet,
    settings: EvaluationSettings,
    *,
    against: Callable[[], AbstractContextManager[Any]] | None = None,
    store: RolloutStore | None = None,
    show_measures: bool = False,
    step: int = 0,
) -> EvaluationResult:
    """Evaluate a model (`evaluate_model`), print the table, and record metrics and tables.

    `show_measures` prints the table of measures too; `step` is the step of the metrics.
    """
    with ProgressBar("evaluate", None, "rollout") as bar:

        def progress(state: Progress) -> None:
            bar.total = state.total
            bar.show(f"{state.model} right {state.accuracy:.2f}", right=state.accuracy)
            bar.update(state.done - bar.n)

        result = evaluate_model(
            model,
            encoder,
            evaluation_set.examples,
            settings,
            against=against,
            store=store,
            progress=progress,
        )
    title = evaluation_set.title
    table = as_text(accuracy_table(result, title=f"Answer accuracy on {title}, 95 % intervals"))
    print(table, end="", flush=True)
    recorder.text(table, f"{FOLDER}/table.txt")
    if AGAINST in result.models:
        second = "The same examples, against the second adapter"
        table = as_text(accuracy_table(result, title=second, other=AGAINST))
        print(table, end="", flush=True)
        recorder.text(table, f"{FOLDER}/against.txt")
    _record_grid(recorder, result, title)
    if show_measures:
        measures = measures_table(result, title=f"Measures on {title}, 95 % intervals")
        print(as_text(measures), end="", flush=True)
    tables = [
        as_text(measures_table(result, title=f"{group}, 95 % intervals", group=group))
        for group in result.adapter.measures
    ]
    recorder.text("\n".join(tables), f"{FOLDER}/measures.txt")
    recorder.table(measure_rows(result), f"{FOLDER}/measures.json")
    recorder.table(result_rows(result), f"{FOLDER}/table.json")
    _record_rollout_table(recorder, result)
    recorder.metrics(result_values(result, evaluation_set.name), step)
    return result


def _record_grid(recorder: MlflowRecorder, result: EvaluationResult, title: str) -> None:
    """Print and record the accuracies by difficulty and task, and each significant loss."""
    grid = grid_of(result)
    heading = f"Difficulty and task on {title}, worst first, 95 % intervals"
    text = "\n".join([as_text(grid_table(grid, title=heading)).rstrip(), *loss_lines(grid)]) + "\n"
    print(text, end="", flush=True)
    recorder.text(text, f"{FOLDER}/grid.txt")
    recorder.table(grid_rows(grid), f"{FOLDER}/grid.json")


def _record_rollout_table(recorder: MlflowRecorder, result: EvaluationResult) -> None:
    cells = picture_cells(result.examples)
    rows = rollout_rows(result, cells)
    recorder.table(rows, f"{FOLDER}/rollouts.json")
    if len(cells) > MAX_PICTURES:
        logger.info(
            f"evaluation/rollouts.json shows the images of {MAX_PICTURES} of {len(cells)} examples "
            f"(at most {MAX_PICTURES} images); it holds all {len(rows)} rollouts"
        )


def picture_cells(
    examples: Sequence[Example], max_pictures: int = MAX_PICTURES
) -> dict[str, Image.Image | str]:
    """Return the thumbnail of each example by its id; after the first ones, a note instead."""
    cells: dict[str, Image.Image | str] = {example.id: LEFT_OUT for example in examples}
    for example in examples[:max_pictures]:
        picture = side_by_side(example.images)
        picture.thumbnail((SIDE, SIDE))
        cells[example.id] = picture
    return cells


def rollout_rows(
    result: EvaluationResult, cells: Mapping[str, Image.Image | str]
) -> list[dict[str, Any]]:
    """Return one row per rollout: question, answer, truth, verdict, then all else.

    `verdict` is `right` or `wrong`; for an adapter whose base was rolled out from the same start
    (example, sample, planted), it is `gained` or `lost` if exactly one of the two is right.
    `failures` counts failed turns by kind (`Turn.failure`). `cells` are of `picture_cells`.
    """
    examples = {example.id: example for example in result.examples}
    base: dict[tuple[str, int, bool], bool] = {}
    rows = []
    for label, evaluation in result.models.items():
        for rollout in chain(*evaluation.samples, evaluation.planted):
            example = examples[rollout.example_id]
            start = (example.id, rollout.sample, rollout.planted)
            is_right = answers_match(rollout.answer, example)
            if label == BASE:
                base[start] = is_right
            failures = [f"{kind} {num}" for kind, num in sorted(rollout.failures.items())]
            rows.append(
                {
                    "question": example.question,
                    "answer": rollout.answer,
                    "truth": example.ground_truth,
                    "verdict": verdict_of(is_right, base.get(start) if label == ADAPTER else None),
                    "image": cells[example.id],
                    "model": label,
                    "why": "" if is_right else explain(rollout, example),
                    "id": example.id,
                    "sample": rollout.sample,
                    "planted": rollout.planted,
                    "difficulty": example.difficulty,
                    "task": example.task,
                    "sample_type": example.sample_type,
                    "right": is_right,
                    "outcome": rollout.outcome,
                    "failures": ", ".join(failures),
                    "turns": "\n---\n".join(turn.text for turn in rollout.turns),
                }
            )
    return rows


def evaluation_links(recorder: MlflowRecorder) -> str:
    """Return links to the evaluation's report, tables and traces in its run, in Markdown."""
    links = (("Report", REPORT_FILE), ("Table", "table.txt"), ("Measures", "measures.txt"))
    shown = [f"[{name}]({recorder.page}/artifacts/{FOLDER}/{file})" for name, file in links]
    return " · ".join([*shown, f"[Traces]({recorder.page}/traces)"])


def record_rollouts(
    recorder: MlflowRecorder,
    result: EvaluationResult,
    evaluation_set: EvaluationSet,
    settings: RecordSettings,
    *,
    model: Mapping[str, Any] | None,
    dataset: tuple[str, str],
) -> None:
    """Record single rollouts: figures, images, traces and the report; log the report's path.

    `model` is the LoggedModel that was measured, or None; `dataset` is the data's name and digest.
    """
    if model is not None:
        name, digest = dataset
        about_it = (f"{evaluation_set.name}/{ADAPTER}/", f"{evaluation_set.name}/gain/")
        values = result_values(result, evaluation_set.name)
        keys = [key for key in values if key.startswith(about_it)]
        link_measured(recorder, model, keys, settings.step, name=name, digest=digest)
    cases = build_cases(result)
    about = {"run": recorder.run_name, "date": recorder.date}
    about |= {"curriculum": settings.curriculum} if settings.curriculum else {}
    _try(lambda: _record_charts(recorder, build_charts(result, cases, about)))
    _try(lambda: _record_images(recorder, worst_first(cases, TABLE_ROWS, settings.seed)))
    _try(lambda: _record_traces(recorder, cases, settings, model))
    if settings.num_reported:
        page = report_page(
            result,
            title=f"Evaluation of {settings.adapter} on {evaluation_set.name}",
            about={
                **about,
                "examples": str(len(result.examples)),
                "base": settings.base,
                "data": evaluation_set.path,
                "seed": str(settings.seed),
            },
            limit=settings.num_reported,
            seed=settings.seed,
        )
        recorder.text(page, f"{FOLDER}/{REPORT_FILE}")
        _try(lambda: _write_report(settings.report_folder, page))


def _try(record: Callable[[], None]) -> None:
    """Record an optional part; log a warning if it fails, so that other parts are recorded."""
    try:
        record()
    except Exception as error:  # any error of a library: the numbers are recorded already
        name = type(error).__name__
        logger.warning("a part of the evaluation's record is missing (%s: %s)", name, error)


def _write_report(folder: Path, page: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_FILE
    write_atomic(path, page)
    logger.info("report: %s", path)


def _record_charts(recorder: MlflowRecorder, charts: Mapping[str, Chart]) -> None:
    for name, chart in charts.items():
        record_chart(recorder, chart, f"{FOLDER}/{name}")


def _record_images(recorder: MlflowRecorder, cases: Sequence[Case]) -> None:
    rows = []
    for case in cases:
        example, rollout = case.example, case.rollout
        turns = list(enumerate(rollout.turns, 1))
        marked = marked_frames(turns, example.images, side=TABLE_SIDE)
        rows.append(
            {
                "image": side_by_side(list(marked.values()) or list(example.images)),
                "verdict": case.verdict,
                "why": case.why,
                "difficulty": example.difficulty,
                "task": example.task,
                "question": example.question,
                "truth": example.ground_truth,
                "answer": rollout.answer,
                "base_answer": case.base.answer if case.base else None,
                "turns": "\n---\n".join(turn.text for turn in rollout.turns),
                "id": example.id,
            }
        )
    recorder.table(rows, f"{FOLDER}/images.json")


def _record_traces(
    recorder: MlflowRecorder,
    cases: Sequence[Case],
    settings: RecordSettings,
    model: Mapping[str, Any] | None,
) -> None:
    traced = spread_evenly(cases, settings.num_traces, settings.seed)
    for case in traced:
        example, answer = case.example, case.rollout.answer
        log_trace(
            recorder,
            key=f"rollout {example.id}",
            name=f"{case.verdict}: {example.task}",
            preview=(
                example.question,
                f"{'no answer' if answer is None else answer} ({example.ground_truth})",
            ),
            spans=build_spans(case),
            # MLflow shows the share of each assessment, which is not the accuracy.
            assessment=f"right ({len(traced)} of {len(cases)} rollouts, even by verdict)",
            is_right=case.is_right,
            why=case.why,
            answered=case.rollout.outcome == ANSWERED,
            tags={
                "verdict": case.verdict,
                "difficulty": example.difficulty,
                "task": example.task,
                "example": example.id,
            },
            model=model,
        )
