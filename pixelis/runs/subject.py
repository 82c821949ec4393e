"""What `evaluate` rolls out: a split of prepared data, or questions from a user's file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pixelis.config import EvaluateConfig
from pixelis.data.encode import Encoder, encode_example
from pixelis.data.example import Example
from pixelis.data.store import load_split
from pixelis.data_prep.benchmarks import (
    LAYOUTS,
    QuestionSet,
    describe_rejection,
    questions_digest,
    read_questions,
)
from pixelis.data_prep.importing import count_by_reason
from pixelis.evaluation.count_error import count_errors
from pixelis.evaluation.evaluate import EvaluationResult, choose_examples
from pixelis.evaluation.groups import ALL, strata
from pixelis.evaluation.measures_report import evaluated_models
from pixelis.runs.inputs import link_data_run, record_inputs, record_split
from pixelis.tracking import MlflowRecorder, log_questions
from pixelis.training.inputs import data_digest

TOLD = 5  # rejections that are printed; all are in the run
ACCURACY = "answer_accuracy"


@dataclass(frozen=True)
class Subject:
    """What is rolled out.

    Attributes:
        examples: chosen.
        name: the beginning of the metrics' names.
        title: for people.
        digests: what makes it the same one: name -> SHA-256.
        where: the folder or file, for the report.
        record: leaves it in a run as inputs; gives name and digest of the dataset.
        lines: what is said of it.
        score: the measure that a benchmark's paper takes, and what it calls it; empty: accuracy.
        counts: answers are numbers of things: their RMSE is told as well.
    """

    examples: list[Example]
    name: str
    title: str
    digests: Mapping[str, str]
    where: str
    record: Callable[[MlflowRecorder], tuple[str, str]]
    lines: list[str] = field(default_factory=list)
    score: tuple[str, str] = (ACCURACY, "accuracy")
    counts: bool = False


def choose_subject(config: EvaluateConfig, encoder: Encoder, max_positions: int | None) -> Subject:
    """Choose and open what a configuration names.

    Args:
        config: of the evaluation.
        encoder: of the model that is to be asked.
        max_positions: tokens of the longest question of a user's file; None leaves it unchecked.

    Raises:
        DataError: when it cannot be read, or there is nothing to ask.
    """
    if config.input is None:
        return _split(config)

    def count_tokens(example: Example) -> int:
        # The solution too: where there is one, the model is measured with its words given.
        return len(encode_example(example, encoder))

    found = read_questions(
        Path(config.input),
        record_format=config.format,
        images=None if config.image_folder is None else Path(config.image_folder),
        samples_per_group=config.samples_per_difficulty,
        max_rejected=config.max_rejected,
        seed=config.seed,
        count_tokens=count_tokens,
        max_positions=max_positions,
    )
    return _questions(found, Path(config.input))


def _split(config: EvaluateConfig) -> Subject:
    folder, split = Path(config.data.path), config.split
    digests = data_digest(folder)
    wanted = config.samples_per_difficulty
    examples = choose_examples(load_split(folder, split), wanted, config.seed, split=split)

    def record(recorder: MlflowRecorder) -> tuple[str, str]:
        record_inputs(recorder, folder, digests, context=split)
        link_data_run(recorder, digests)
        return record_split(recorder, folder, digests, split)

    return Subject(examples, split, f"the {split} split", digests, str(folder), record)


def _questions(found: QuestionSet, path: Path) -> Subject:
    digest = questions_digest(found.examples)
    layout = LAYOUTS.get(found.format)
    name = found.format if layout else "input"

    def record(recorder: MlflowRecorder) -> tuple[str, str]:
        num = len(found.examples)
        log_questions(recorder, path, name=name, digest=digest, num_rows=num, context="test")
        if found.rejections:
            rows = [vars(rejection) for rejection in found.rejections]
            recorder.table(rows, "evaluation/rejected.json")
        return name, digest

    return Subject(
        examples=list(found.examples),
        name=name,
        title=found.title,
        digests={"input": digest},
        where=str(path),
        record=record,
        lines=_lines(found),
        score=(layout.score, layout.score_name) if layout else (ACCURACY, "accuracy"),
        counts=layout is not None and layout.counts,
    )


def _lines(found: QuestionSet) -> list[str]:
    lines = [f"{found.title}: {len(found.examples)} questions of {found.num_records} records"]
    if found.rejections:
        counts = count_by_reason(found.rejections)
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        lines.append(f"left out: {len(found.rejections)} ({reasons})")
        lines += [f"  {describe_rejection(each)}" for each in found.rejections[:TOLD]]
    return lines


def record_score(
    recorder: MlflowRecorder,
    subject: Subject,
    result: EvaluationResult,
    *,
    bootstrap_samples: int,
    seed: int,
) -> None:
    """Where a benchmark's paper does not score by accuracy alone, print its score and record it."""
    if subject.counts:
        _record_count_errors(recorder, subject, result, bootstrap_samples, seed)
    measure, called = subject.score
    if measure == ACCURACY:
        return
    values: dict[str, float] = {}
    print(f"{called} on {subject.title}, its paper's score, with 95 % intervals:")
    for label, evaluation in evaluated_models(result).items():
        for group in (*strata(evaluation.measures), ALL):
            score = evaluation.measures[group][measure]
            key = f"{subject.name}/{label}/{group}/{called.lower()}"
            values |= {key: score.value, f"{key}_low": score.low, f"{key}_high": score.high}
            shown = f"{100 * score.value:.1f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"
            print(f"  {label}, {group} (n = {score.num}): {shown}", flush=True)
    recorder.metrics(values, 0)


def _record_count_errors(
    recorder: MlflowRecorder, subject: Subject, result: EvaluationResult, num: int, seed: int
) -> None:
    values: dict[str, float] = {}
    print(f"RMSE of counts on {subject.title}, with 95 % intervals; no number counts as 0:")
    for label, evaluation in evaluated_models(result).items():
        table = count_errors(evaluation.rollouts, result.examples, num_samples=num, seed=seed)
        for group, (score, untold) in table.items():
            key = f"{subject.name}/{label}/{group}/rmse"
            values |= {key: score.value, f"{key}_low": score.low, f"{key}_high": score.high}
            values[f"{key}_no_number"] = untold
            shown = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
            print(f"  {label}, {group} (n = {score.num}, no number: {untold}): {shown}", flush=True)
    recorder.metrics(values, 0)
