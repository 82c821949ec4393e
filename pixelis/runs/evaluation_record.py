"""What an evaluation leaves beside its numbers: figures, images, traces, a report, a link.

All of it is made after the last rollout; none of it stops a run whose numbers are there.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelis import figures
from pixelis.data_prep.figures import side_by_side
from pixelis.evaluation.cases import Case, build_cases, worst_first
from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.groups import ALL, TASK_PREFIX, strata
from pixelis.evaluation.page import report_page
from pixelis.evaluation.report import as_text, result_table, result_values
from pixelis.evaluation.spans import build_spans, marked_frames
from pixelis.evaluation.turns import ANSWERED, MAX_OPERATIONS
from pixelis.files import write_atomic
from pixelis.tracking import MlflowRecorder, link_measured, log_image_table, log_trace

FOLDER = "evaluation"
REPORT_FILE = "report.html"
# What the table of images may take: MLflow keeps two files of every image, and waits for each.
TABLE_ROWS = 60
TABLE_SIDE = 320
TABLE_BYTES = 20_000_000  # of pixels; a tenth of it on disk where images are drawn
ENDINGS = {ANSWERED: "wrong answer", MAX_OPERATIONS: "called until the limit"}


def record_evaluation(
    recorder: MlflowRecorder,
    result: EvaluationResult,
    *,
    adapter: str,
    split: str,
    step: int,
    seed: int,
    model: Mapping[str, Any] | None,
    dataset: tuple[str, str],
    about: Mapping[str, str],
    num_traces: int,
    num_reported: int,
    report_folder: Path,
) -> None:
    """Leave in the run what shows single rollouts, and print where the report is.

    Args:
        recorder: of the run.
        result: what was rolled out.
        adapter: its name or address, for titles.
        split: the split's or the benchmark's name, as in the metrics' names.
        step: of the metrics.
        seed: of what is chosen.
        model: the LoggedModel that was measured, or None.
        dataset: name and digest of what it was measured on.
        about: what the report says of the evaluation.
        num_traces: rollouts kept as traces.
        num_reported: trajectories in the report; with 0 there is none.
        report_folder: where the user finds the report, beside the run's copy.
    """
    if model is not None:
        keys = _keys_of_model(result, split)
        link_measured(recorder, model, keys, step, name=dataset[0], digest=dataset[1])
    cases = build_cases(result)
    for draw in (_figures, _table):
        _leave(lambda draw=draw: draw(recorder, cases, seed))  # type: ignore[misc]
    _leave(lambda: _traces(recorder, worst_first(cases, num_traces, seed), model))
    if num_reported:
        title = f"Evaluation of {adapter} on {split}"
        page = report_page(result, title=title, about=about, limit=num_reported, seed=seed)
        recorder.text(page, f"{FOLDER}/{REPORT_FILE}")
        _leave(lambda: _write(report_folder, page))


def tell_result(recorder: MlflowRecorder, result: EvaluationResult, title: str) -> None:
    """Let the run's description show the table, and lead to the report."""
    table = as_text(result_table(result, title=title))
    place = f"#/experiments/{recorder.experiment_id}/runs/{recorder.run_id}"
    links = f"[Report]({place}/artifacts/{FOLDER}/{REPORT_FILE}) · [Traces]({place}/traces)"
    recorder.note(f"```\n{table}\n```\n\n{links}")


def describe(result: EvaluationResult, **more: Any) -> dict[str, str]:
    """What a report says above its numbers."""
    return {"examples": str(len(result.examples)), **{k: str(v) for k, v in more.items()}}


def _keys_of_model(result: EvaluationResult, split: str) -> list[str]:
    """The adapter's own numbers by difficulty and of all; of tasks, accuracy and gain alone.

    Every link costs MLflow a look at the metric's past, and nobody ranks adapters by the rest.
    """
    values = result_values(result, split)
    accuracy = result.adapter.accuracy
    groups = (*strata(accuracy), ALL)
    begin = tuple(f"{split}/adapter/{group}/" for group in groups)
    kept = {f"{split}/gain/{group}{end}" for group in groups for end in ("", "_low", "_high")}
    for task in (name for name in accuracy if name.startswith(TASK_PREFIX)):
        kept |= {f"{split}/adapter/{task}/answer_accuracy", f"{split}/gain/{task}"}
    dropped = tuple(f"/{rate}" for rate in result.adapter.rates[ALL])
    return [
        key
        for key in values
        if key in kept or (key.startswith(begin) and not key.endswith(dropped))
    ]


def _leave(work: Callable[[], None]) -> None:
    """Do what is nice to have; a full disk or a drawing library's mood costs that alone."""
    try:
        work()
    except Exception as error:  # whatever libraries raise: the numbers are recorded already
        print(
            f"pixelis: warning: a part of the evaluation's record is missing "
            f"({type(error).__name__}: {error})",
            file=sys.stderr,
        )


def _write(folder: Path, page: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_FILE
    write_atomic(path, page)
    print(f"report: {path}", flush=True)


def _figures(recorder: MlflowRecorder, cases: Sequence[Case], seed: int) -> None:
    endings = [
        {"group": group, "kind": _ending(case)}
        for by in ("difficulty", "task")
        for case in cases
        for group in [getattr(case.example, by)]
    ]
    bars = figures.outcome_bars(endings)
    recorder.figure(f"{FOLDER}/failures.png", figures.bars_figure(bars))
    recorder.text(figures.bars_page(bars, "where rollouts fail"), f"{FOLDER}/failures.html")
    grids = figures.confusions(
        [
            {
                "task": case.example.task,
                "truth": case.example.ground_truth,
                "answer": case.rollout.answer,
                "right": case.is_right,
            }
            for case in cases
        ]
    )
    recorder.figure(f"{FOLDER}/confusion.png", figures.confusion_figure(grids))
    recorder.text(figures.confusion_page(grids, "confusion by task"), f"{FOLDER}/confusion.html")


def _ending(case: Case) -> str:
    return "right" if case.is_right else ENDINGS.get(case.rollout.outcome, "no answer")


def _table(recorder: MlflowRecorder, cases: Sequence[Case], seed: int) -> None:
    rows, room = [], TABLE_BYTES
    for case in worst_first(cases, TABLE_ROWS, seed):
        example, rollout = case.example, case.rollout
        looked_at = marked_frames(
            list(enumerate(rollout.turns, 1)), example.images, side=TABLE_SIDE
        )
        picture = side_by_side(list(looked_at.values()) or list(example.images))
        room -= 3 * picture.width * picture.height
        if room < 0:
            break
        rows.append(
            {
                "image": picture,
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
    log_image_table(recorder, rows, f"{FOLDER}/images.json")


def _traces(
    recorder: MlflowRecorder, cases: Sequence[Case], model: Mapping[str, Any] | None
) -> None:
    for case in cases:
        example = case.example
        log_trace(
            recorder,
            key=f"rollout {example.id}",
            name=f"{case.verdict}: {example.task}",
            spans=build_spans(case),
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
