"""The evaluation of a model: choose examples, roll out adapter and base, compare them."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import datasets

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError
from pixelis.evaluation.conversation import Conversation, planted_steps
from pixelis.evaluation.intervals import Score, ratio_table
from pixelis.evaluation.matching import answers_match
from pixelis.evaluation.measures import (
    compute_measures,
    sample_fractions,
    teacher_forced_fractions,
)
from pixelis.evaluation.metrics import (
    Comparison,
    accuracy_table,
    group_indices,
    is_cell,
    paired_comparison,
    rate_table,
)
from pixelis.evaluation.rollout import RolloutSettings, roll_out
from pixelis.evaluation.rollout_store import RolloutStore
from pixelis.evaluation.turns import Rollout
from pixelis.evaluation.validation import Tally, tally_examples

ADAPTER, BASE, AGAINST = "adapter", "base", "against"


@dataclass(frozen=True)
class EvaluationSettings(RolloutSettings):
    """The settings of an evaluation.

    Attributes:
        num_samples: number of rollouts of each example.
        compare_base: whether to roll out the base too.
        planted_errors: whether to roll out examples with a planted wrong step again, starting after
            this step.
        teacher_forced: whether to measure the examples teacher-forced too.
        bootstrap_samples: number of resamples for each interval, drawn with `seed`.
    """

    num_samples: int = 1
    compare_base: bool = True
    planted_errors: bool = False
    teacher_forced: bool = False
    bootstrap_samples: int = 1000


@dataclass(frozen=True)
class Progress:
    """The progress of an evaluation, for a progress bar.

    Attributes:
        model: model of the last rollout: `adapter`, `base` or `against`.
        done: finished rollouts of all models, with resumed ones and those after planted errors.
        total: rollouts of all models.
        resumed: rollouts that a stopped evaluation had stored.
        right: right answers of this model, without rollouts after planted errors.
        counted: number of rollouts in which `right` is counted.
    """

    model: str
    done: int
    total: int
    resumed: int
    right: int
    counted: int


@dataclass(frozen=True)
class Evaluation:
    """The rollouts of one model with their measures by group (`metrics`).

    Attributes:
        rollouts: the first rollout of each example, in the examples' order; accuracy and
            comparisons use these.
        accuracy: group -> answer accuracy.
        rates: group -> rate -> value: lengths and outcomes of rollouts (`metrics.compute_rates`).
        measures: group -> measure -> score (`measures.compute_measures`), without cells.
        samples: all rollouts by example, with the first; empty if each example has only one.
        planted: the rollouts after planted errors.
    """

    rollouts: tuple[Rollout, ...]
    accuracy: Mapping[str, Score]
    rates: Mapping[str, Mapping[str, float]]
    measures: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    samples: tuple[tuple[Rollout, ...], ...] = ()
    planted: tuple[Rollout, ...] = ()


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluations of several models on the same examples.

    Attributes:
        examples: the examples.
        models: evaluations of `base` and `against` (a second adapter), if they were requested, and
            of `adapter`, in this order.
        comparisons: label of the other model -> group -> comparison with the adapter.
    """

    examples: tuple[Example, ...]
    models: Mapping[str, Evaluation]
    comparisons: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)

    @property
    def adapter(self) -> Evaluation:
        """Evaluation of the trained model."""
        return self.models[ADAPTER]

    @property
    def base(self) -> Evaluation | None:
        """Evaluation of its base, if requested."""
        return self.models.get(BASE)


def choose_examples(
    rows_by_difficulty: Mapping[str, datasets.Dataset],
    samples_per_difficulty: int,
    seed: int,
    *,
    split: str,
) -> list[Example]:
    """Choose examples of every difficulty by the seed, alternating between its tasks.

    The rows are those of one split (`pixelis.data.store.load_split`); errors name the split.

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
    settings: EvaluationSettings,
    *,
    against: Callable[[], AbstractContextManager[Any]] | None = None,
    store: RolloutStore | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> EvaluationResult:
    """Roll out a trained model and, on the same examples, its base and a second adapter.

    Args:
        model: a model with a PEFT adapter, or a fully trained one.
        encoder: encoder with the model's processor.
        examples: at least one example.
        settings: settings of the evaluation.
        against: context of the model with a second adapter (`lora.temporary_adapter`).
        store: keeps finished rollouts, with which a stopped evaluation is resumed.
        progress: called when each model starts and when each rollout ends.

    Raises:
        ValueError: when there are no examples, or no base to compare with.
    """
    if not examples:
        raise ValueError("an evaluation needs at least one example, got none")
    if settings.compare_base and not hasattr(model, "disable_adapter"):
        raise ValueError(f"compare_base needs an adapter on the model, got {type(model).__name__}")
    models: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        ADAPTER: lambda: nullcontext(model)
    }
    if settings.compare_base:
        models[BASE] = lambda: _without_adapter(model)
    if against is not None:
        models[AGAINST] = against
    conversations = [Conversation(e, n) for e in examples for n in range(settings.num_samples)]
    num_plain = len(conversations)
    if settings.planted_errors:
        conversations += [Conversation(e, planted=True) for e in examples if planted_steps(e)]
    stored: dict[str, dict[int, Rollout]] = {name: {} for name in models}
    if store is not None:
        stored = {name: store.load(name, conversations) for name in models}
    total, num_resumed = len(conversations) * len(models), sum(map(len, stored.values()))
    done = num_resumed

    def evaluate(name: str) -> Evaluation:
        rollouts, right, counted = stored[name], 0, 0

        def count(index: int) -> None:
            nonlocal right, counted
            if index < num_plain:  # without rollouts after planted errors
                counted += 1
                right += answers_match(rollouts[index].answer, conversations[index].example)

        def report() -> None:
            progress(Progress(name, done, total, num_resumed, right, counted))

        for index in rollouts:
            count(index)
        report()
        missing = [index for index in range(len(conversations)) if index not in rollouts]

        def finish(position: int, rollout: Rollout) -> None:
            nonlocal done
            done += 1
            if store is not None:
                store.add(name, rollout)
            rollouts[missing[position]] = rollout
            count(missing[position])
            report()

        tallies: Sequence[Tally] = ()
        with models[name]() as active:
            roll_out(
                active, encoder, [conversations[i] for i in missing], settings, progress=finish
            )
            if settings.teacher_forced:
                tallies = tally_examples(active, encoder, examples, batch_size=settings.batch_size)
        ordered = [rollouts[index] for index in range(len(conversations))]
        return summarise(ordered[:num_plain], ordered[num_plain:], examples, settings, tallies)

    evaluations = {name: evaluate(name) for name in models}
    ordered = {name: evaluations[name] for name in (BASE, AGAINST, ADAPTER) if name in models}
    rollouts = {name: evaluation.rollouts for name, evaluation in ordered.items()}
    adapter = rollouts.pop(ADAPTER)
    num, seed = settings.bootstrap_samples, settings.seed
    comparisons = {
        name: paired_comparison(others, adapter, examples, num_samples=num, seed=seed)
        for name, others in rollouts.items()
    }
    return EvaluationResult(tuple(examples), ordered, comparisons)


@contextmanager
def _without_adapter(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model


def summarise(
    rollouts: Sequence[Rollout],
    planted: Sequence[Rollout],
    examples: Sequence[Example],
    settings: EvaluationSettings,
    tallies: Sequence[Tally] = (),
) -> Evaluation:
    """Compute all measures of a model's rollouts, which are sorted by example, equally many each.

    `planted` are the rollouts after planted errors; `tallies` the teacher-forced results, if any.
    """
    num = len(rollouts) // len(examples)
    firsts = tuple(rollouts[::num])
    samples = tuple(tuple(rollouts[start : start + num]) for start in range(0, len(rollouts), num))
    fractions = compute_measures(firsts, planted, examples)
    if num > 1:
        fractions |= sample_fractions(samples, examples)
    if tallies:
        fractions |= teacher_forced_fractions(tallies)
    groups = {name: i for name, i in group_indices(examples).items() if not is_cell(name)}
    num_samples, seed = settings.bootstrap_samples, settings.seed
    return Evaluation(
        rollouts=firsts,
        accuracy=accuracy_table(firsts, examples, num_samples=num_samples, seed=seed),
        rates=rate_table(firsts, examples),
        measures=ratio_table(fractions, groups, num_samples=num_samples, seed=seed),
        samples=samples if num > 1 else (),
        planted=tuple(planted),
    )
