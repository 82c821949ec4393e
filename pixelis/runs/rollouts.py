"""Rollouts of base and adapter for sft and evaluate: shown as a table, left in the run."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from tqdm import tqdm

from pixelis import figures
from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.evaluation.evaluate import EvaluationResult, Standing, evaluate_model
from pixelis.evaluation.groups import strata
from pixelis.evaluation.kept_rollouts import KeptRollouts
from pixelis.evaluation.measures_report import (
    evaluated_models,
    measure_rows,
    measured_groups,
    measures_table,
)
from pixelis.evaluation.report import (
    against_table,
    as_text,
    result_rows,
    result_table,
    result_values,
)
from pixelis.runs.rollout_table import record_rollouts
from pixelis.tracking import MlflowRecorder

FOLDER = "evaluation"
DEFAULT_BATCH_SIZE = 40
DEFAULT_MAX_NEW_TOKENS = 96


def evaluate_and_record(
    recorder: MlflowRecorder,
    model: Any,
    encoder: Encoder,
    *,
    examples: Sequence[Example],
    split: str,
    title: str,
    max_operations: int,
    seed: int,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    batch_size: int = DEFAULT_BATCH_SIZE,
    compare_base: bool = True,
    bootstrap_samples: int = 1000,
    num_samples: int = 1,
    temperature: float = 0.0,
    planted_errors: bool = False,
    teacher_forced: bool = False,
    against: Callable[[], AbstractContextManager[Any]] | None = None,
    kept: KeptRollouts | None = None,
    show_measures: bool = False,
    step: int = 0,
) -> EvaluationResult:
    """Roll out, print the table, record metrics, tables and a figure; see `evaluate_model`.

    `split` begins the metrics' names, `title` is for people: `the test split`.
    """
    with tqdm(unit="rollout", desc="evaluate", mininterval=1) as bar:

        def progress(standing: Standing) -> None:
            bar.total, bar.initial = standing.total, standing.taken
            if standing.counted:
                accuracy = f"{standing.model} right {standing.right / standing.counted:.2f}"
                bar.set_postfix_str(accuracy, refresh=False)
            bar.update(standing.done - bar.n)

        result = evaluate_model(
            model,
            encoder,
            examples,
            max_operations=max_operations,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            compare_base=compare_base,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            num_samples=num_samples,
            temperature=temperature,
            planted_errors=planted_errors,
            teacher_forced=teacher_forced,
            against=against,
            kept=kept,
            progress=progress,
        )
    table = result_table(result, title=f"Answer accuracy on {title}, 95 % intervals")
    plain = Console()
    console = Console(width=max(80, min(100, plain.width)) if plain.is_terminal else 100)
    console.print(table)
    recorder.text(as_text(table), f"{FOLDER}/table.txt")
    second = against_table(result, title="The same examples, against the second adapter")
    measures = measures_table(result, title=f"Measures on {title}, 95 % intervals")
    if second is not None:
        console.print(second)
        recorder.text(as_text(second), f"{FOLDER}/against.txt")
    if show_measures:
        console.print(measures)
    every = [
        as_text(measures_table(result, title=f"{group}, 95 % intervals", group=group))
        for group in measured_groups(result)
    ]
    recorder.text("\n".join(every), f"{FOLDER}/measures.txt")
    recorder.table(measure_rows(result), f"{FOLDER}/measures.json")
    recorder.table(result_rows(result), f"{FOLDER}/table.json")
    record_rollouts(recorder, result)
    recorder.metrics(result_values(result, split), step)
    bars = figures.accuracy_bars(_bars(result))
    recorder.figure(f"{FOLDER}/accuracy.png", figures.bars_figure(bars))
    recorder.text(figures.bars_page(bars, "accuracy"), f"{FOLDER}/accuracy.html")
    return result


def _bars(result: EvaluationResult) -> list[dict[str, Any]]:
    return [
        {
            "difficulty": difficulty,
            "model": name,
            "accuracy": evaluation.accuracy[difficulty].value,
            "low": evaluation.accuracy[difficulty].low,
            "high": evaluation.accuracy[difficulty].high,
            "n": evaluation.accuracy[difficulty].num,
        }
        for name, evaluation in evaluated_models(result).items()
        for difficulty in strata(evaluation.accuracy)
    ]
