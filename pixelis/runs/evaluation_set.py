"""The examples that `evaluate` rolls out, from a split of prepared data or from a user's file."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pixelis.config import EvaluateConfig
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.example import Example
from pixelis.data.store import load_split
from pixelis.data_prep.benchmarks import (
    LAYOUTS,
    Layout,
    QuestionSet,
    describe_rejection,
    questions_digest,
    read_questions,
)
from pixelis.evaluation.evaluate import EvaluationResult, choose_examples
from pixelis.evaluation.metrics import ALL, count_errors, strata
from pixelis.evaluation.tables import format_number, format_percent, measure_row
from pixelis.runs.inputs import link_data_run, record_inputs, record_split
from pixelis.tracking import MlflowRecorder, log_questions
from pixelis.training.inputs import data_digest

MAX_LOGGED_REJECTIONS = 5  # all are in the run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSet:
    """Examples to roll out, with their names."""

    examples: list[Example]  # the chosen examples
    name: str  # the first part of the metrics' names
    title: str  # title for the console and the report
    digests: Mapping[str, str] = field(default_factory=dict)  # file name -> SHA-256 of the data
    path: str = ""  # path of the folder or file, for the report
    # Records the set as input of a run; returns name and digest of the dataset.
    record: Callable[[MlflowRecorder], tuple[str, str]] = lambda _: ("", "")
    layout: Layout | None = None  # the layout of a benchmark, with its score


def choose_evaluation_set(
    config: EvaluateConfig, encoder: Encoder, max_positions: int | None
) -> EvaluationSet:
    """Choose the examples that a configuration names.

    Questions of a user's file with more than `max_positions` tokens are rejected.

    Raises:
        DataError: when the examples cannot be read, or there are none.
    """
    if config.input is None:
        return _from_split(config, encoder)
    questions = read_questions(
        Path(config.input),
        record_format=config.format,
        images=None if config.image_folder is None else Path(config.image_folder),
        samples_per_group=config.samples_per_difficulty,
        max_rejected=config.max_rejected,
        seed=config.seed,
        # Count the solution too, if there is one: the model is measured teacher-forced on it.
        count_tokens=lambda example: len(encode_example(example, encoder)),
        max_positions=max_positions,
    )
    return _from_questions(questions, Path(config.input))


def _from_split(config: EvaluateConfig, encoder: Encoder) -> EvaluationSet:
    folder, split = Path(config.data.path), config.split
    digests = data_digest(folder)
    num = config.samples_per_difficulty
    rows = load_split(folder, split)
    examples = choose_examples(rows, num, config.seed, split=split, encoder=encoder)

    def record(recorder: MlflowRecorder) -> tuple[str, str]:
        record_inputs(recorder, folder, digests, context=split)
        link_data_run(recorder, digests)
        return record_split(recorder, folder, digests, split)

    return EvaluationSet(examples, split, f"the {split} split", digests, str(folder), record)


def _from_questions(questions: QuestionSet, path: Path) -> EvaluationSet:
    title, rejections = questions.title, questions.rejections
    logger.info(f"{title}: {len(questions.examples)} questions of {questions.num_records} records")
    if rejections:
        counts = Counter(each.reason for each in rejections).most_common()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        logger.info("left out: %d (%s)", len(rejections), reasons)
    for rejection in rejections[:MAX_LOGGED_REJECTIONS]:
        logger.info("  %s", describe_rejection(rejection))
    digest = questions_digest(questions.examples)
    layout = LAYOUTS.get(questions.format)
    name = questions.format if layout else "input"

    def record(recorder: MlflowRecorder) -> tuple[str, str]:
        num = len(questions.examples)
        log_questions(recorder, path, name=name, digest=digest, num_rows=num)
        if rejections:
            recorder.table([each.as_row() for each in rejections], "evaluation/rejected.json")
        return name, digest

    return EvaluationSet(
        examples=list(questions.examples),
        name=name,
        title=title,
        digests={"input": digest},
        path=str(path),
        record=record,
        layout=layout,
    )


def record_benchmark_scores(
    recorder: MlflowRecorder, evaluation_set: EvaluationSet, result: EvaluationResult
) -> None:
    """Print and record a benchmark's own score, if its paper does not use accuracy."""
    layout, title = evaluation_set.layout, evaluation_set.title
    if layout is None:
        return
    rows = []
    if layout.counts:
        print(f"RMSE of counts on {title}, with 95 % intervals; no number counts as 0:")
        for label, evaluation in result.models.items():
            errors = count_errors(evaluation.rollouts, result.examples)
            for group, (score, num_missing) in errors.items():
                row = measure_row(label, group, "rmse", score)
                rows.append(row | {"no_number": num_missing})
                text = format_number(score).strip()
                print(f"  {label}, {group} (n = {score.num}, no number: {num_missing}): {text}")
    if layout.score != "answer_accuracy":
        print(f"{layout.score_name} on {title}, its paper's score, with 95 % intervals:")
        for label, evaluation in result.models.items():
            for group in (*strata(evaluation.measures), ALL):
                score = evaluation.measures[group][layout.score]
                rows.append(measure_row(label, group, layout.score_name.lower(), score))
                text = format_percent(score).strip()
                print(f"  {label}, {group} (n = {score.num}): {text}", flush=True)
    recorder.table(rows, "evaluation/benchmark_scores.json")
    name = evaluation_set.name
    keys = [f"{name}/{row['model']}/{row['group']}/{row['measure']}" for row in rows]
    recorder.metrics({key: row["value"] for key, row in zip(keys, rows, strict=True)}, 0)
