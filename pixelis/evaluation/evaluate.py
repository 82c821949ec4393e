"""Choose examples, roll out adapter and base on them, compare: what both command lines call."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import datasets

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError
from pixelis.evaluation.metrics import (
    Comparison,
    Score,
    accuracy_table,
    answers_match,
    paired_comparison,
    rate_table,
)
from pixelis.evaluation.rollout import Rollout, roll_out

# Rollouts done, rollouts to do, right answers so far.
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What one model did, by group (`pixelis.evaluation.metrics`)."""

    rollouts: tuple[Rollout, ...]
    accuracy: Mapping[str, Score]
    rates: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class EvaluationResult:
    """The adapter's evaluation and, where it was asked for, the base's on the same examples."""

    examples: tuple[Example, ...]
    adapter: Evaluation
    base: Evaluation | None = None
    comparison: Mapping[str, Comparison] | None = None


def choose_examples(
    rows_by_difficulty: Mapping[str, datasets.Dataset],
    samples_per_difficulty: int,
    seed: int,
    *,
    split: str,
) -> list[Example]:
    """A seeded choice from every difficulty, its tasks in turn; all where there are fewer.

    Args:
        rows_by_difficulty: of one split (`pixelis.data.store.load_split`).
        samples_per_difficulty: how many of each.
        seed: of the choice; the same rows and seed give the same examples.
        split: named in errors.

    Raises:
        DataError: when a difficulty has no examples, or an image does not open.
    """
    chosen = []
    for difficulty, rows in rows_by_difficulty.items():
        if not len(rows):
            raise DataError(
                f"the {split} split has no {difficulty} examples; run data-prep with more samples"
            )
        by_task: dict[str, list[int]] = {}
        for index, task in enumerate(rows["task"]):
            by_task.setdefault(task, []).append(index)
        for task, indices in by_task.items():
            random.Random(f"evaluate:{seed}:{difficulty}:{task}").shuffle(indices)
        # Every task's first, then every task's second, and so on.
        ranked = sorted(
            (rank, task, index)
            for task, indices in by_task.items()
            for rank, index in enumerate(indices)
        )
        chosen += [from_row(rows[index]) for _, _, index in ranked[:samples_per_difficulty]]
    return chosen


def evaluate_model(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    max_operations: int,
    max_new_tokens: int,
    batch_size: int,
    compare_base: bool,
    bootstrap_samples: int,
    seed: int,
    base_model: Any | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Roll out a trained model and, beside it, its base on the same examples.

    Args:
        model: with a PEFT adapter, or fully trained.
        encoder: of the model's processor.
        examples: at least one.
        max_operations: see `roll_out`.
        max_new_tokens: see `roll_out`.
        batch_size: see `roll_out`.
        compare_base: evaluate the base as well.
        bootstrap_samples: resamples behind each interval.
        seed: of the intervals.
        base_model: the base where it is another object; without one, the adapter is switched off.
        progress: called with rollouts done, rollouts to do (of both models) and right answers.

    Raises:
        ValueError: when there are no examples, or no base to compare with.
    """
    if not examples:
        raise ValueError("an evaluation needs at least one example, got none")
    if compare_base and base_model is None and not hasattr(model, "disable_adapter"):
        raise ValueError(
            "compare_base needs an adapter on the model or a base_model, "
            f"got {type(model).__name__}"
        )
    done = right = 0

    def count(index: int, rollout: Rollout) -> None:
        nonlocal done, right
        done += 1
        right += answers_match(rollout.answer, examples[index])
        if progress is not None:
            progress(done, len(examples) * (1 + compare_base), right)

    def evaluate(speaking_model: Any) -> Evaluation:
        rollouts = roll_out(
            speaking_model,
            encoder,
            examples,
            max_operations=max_operations,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=count,
        )
        accuracy = accuracy_table(rollouts, examples, num_samples=bootstrap_samples, seed=seed)
        return Evaluation(tuple(rollouts), accuracy, rate_table(rollouts, examples))

    adapter = evaluate(model)
    if not compare_base:
        return EvaluationResult(tuple(examples), adapter)
    with nullcontext() if base_model is not None else model.disable_adapter():
        base = evaluate(model if base_model is None else base_model)
    comparison = paired_comparison(
        base.rollouts, adapter.rollouts, examples, num_samples=bootstrap_samples, seed=seed
    )
    return EvaluationResult(tuple(examples), adapter, base, comparison)
