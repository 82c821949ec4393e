"""The evaluation of a model: choose examples, roll out adapter and base, compare them."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import datasets

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError
from pixelis.evaluation.intervals import Score
from pixelis.evaluation.matching import answers_match
from pixelis.evaluation.measures import compute_measures, sample_fractions, teacher_forced_fractions
from pixelis.evaluation.metrics import (
    Comparison,
    compute_rates,
    correct_answers,
    group_indices,
    is_cell,
    paired_comparison,
    score_table,
    share_table,
)
from pixelis.evaluation.rollout import Conversation, RolloutSettings, planted_steps, roll_out
from pixelis.evaluation.rollout_store import RolloutStore
from pixelis.evaluation.turns import Rollout
from pixelis.evaluation.validation import Tally, tally_examples

ADAPTER, BASE, AGAINST = "adapter", "base", "against"


@dataclass(frozen=True)
class EvaluationSettings(RolloutSettings):
    """The settings of an evaluation."""

    num_samples: int = 1  # rollouts of each example
    compare_base: bool = True
    planted_errors: bool = False  # roll out again after the planted wrong step of an example
    teacher_forced: bool = False  # measure the examples teacher-forced too


@dataclass(frozen=True)
class Progress:
    """The finished rollouts of all models, and the share of right answers of the current model."""

    model: str
    done: int
    total: int
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """The rollouts of one model with their measures by group (`metrics`)."""

    samples: tuple[tuple[Rollout, ...], ...]  # all rollouts by example, in the examples' order
    accuracy: Mapping[str, Score]  # of the first rollouts' answers
    rates: Mapping[str, Mapping[str, float]]  # group -> rate -> value (`metrics.compute_rates`)
    # Group, without cells -> measure -> score (`measures.compute_measures`).
    measures: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    planted: tuple[Rollout, ...] = ()  # after planted errors

    @property
    def rollouts(self) -> tuple[Rollout, ...]:
        """The first rollout of each example, which accuracy and comparisons use."""
        return tuple(samples[0] for samples in self.samples)


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluations of several models on the same examples.

    `models` has `base` and `against` (a second adapter), if requested, and `adapter`, in this
    order. `comparisons` is label of the other model -> group -> comparison with the adapter.
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
    models: dict[str, Callable[[], AbstractContextManager[Any]]] = {ADAPTER: nullcontext}
    if settings.compare_base:
        models[BASE] = model.disable_adapter
    if against is not None:
        models[AGAINST] = against
    conversations = [Conversation(e, n) for e in examples for n in range(settings.num_samples)]
    if settings.planted_errors:
        conversations += [Conversation(e, planted=True) for e in examples if planted_steps(e)]

    def evaluate(name: str) -> Evaluation:
        earlier = list(models).index(name) * len(conversations)

        def report(done: int, accuracy: float) -> None:
            progress(Progress(name, earlier + done, len(models) * len(conversations), accuracy))

        tallies: Sequence[Tally] = ()
        with models[name]() as other:
            active = model if other is None else other
            rollouts = _roll_out_missing(
                active, encoder, conversations, settings, name, store, report
            )
            if settings.teacher_forced:
                tallies = tally_examples(active, encoder, examples, batch_size=settings.batch_size)
        return summarise(rollouts, examples, tallies)

    evaluations = {name: evaluate(name) for name in models}
    comparisons = {
        name: paired_comparison(evaluations[name].rollouts, evaluations[ADAPTER].rollouts, examples)
        for name in (BASE, AGAINST)
        if name in models
    }
    ordered = {name: evaluations[name] for name in (*comparisons, ADAPTER)}
    return EvaluationResult(tuple(examples), ordered, comparisons)


def _roll_out_missing(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    settings: EvaluationSettings,
    name: str,
    store: RolloutStore | None,
    report: Callable[[int, float], None],
) -> list[Rollout]:
    """Roll out the conversations that are not stored yet; return all in order."""
    finished = {} if store is None else store.load(name, conversations)
    missing = [index for index in range(len(conversations)) if index not in finished]
    right: list[bool] = []  # of the finished rollouts, without those after planted errors

    def count(index: int) -> None:
        if not conversations[index].planted:
            right.append(answers_match(finished[index].answer, conversations[index].example))

    def tell() -> None:
        report(len(finished), sum(right) / max(1, len(right)))

    for index in finished:
        count(index)
    tell()

    def finish(position: int, rollout: Rollout) -> None:
        index = missing[position]
        finished[index] = rollout
        count(index)
        if store is not None:
            store.add(name, rollout)
        tell()

    starts = [conversations[index] for index in missing]
    roll_out(model, encoder, starts, settings, progress=finish)
    return [finished[index] for index in range(len(conversations))]


def summarise(
    rollouts: Sequence[Rollout],
    examples: Sequence[Example],
    tallies: Sequence[Tally] = (),
) -> Evaluation:
    """Compute all measures of a model's rollouts.

    The rollouts are sorted by example, equally many each, then those after planted errors;
    `tallies` are the teacher-forced results, if any.
    """
    planted = tuple(rollout for rollout in rollouts if rollout.planted)
    plain = iter(rollout for rollout in rollouts if not rollout.planted)
    num = (len(rollouts) - len(planted)) // len(examples)
    samples = tuple(zip(*[plain] * num, strict=True))
    firsts = [each[0] for each in samples]
    fractions = compute_measures(firsts, planted, examples)
    if num > 1:
        fractions |= sample_fractions(samples, examples)
    if tallies:
        fractions |= teacher_forced_fractions(tallies)
    groups = group_indices(examples)
    kept = {name: indices for name, indices in groups.items() if not is_cell(name)}
    return Evaluation(
        samples=samples,
        accuracy=share_table(correct_answers(firsts, examples), groups),
        rates={name: compute_rates([firsts[i] for i in each]) for name, each in groups.items()},
        measures=score_table(fractions, kept),
        planted=planted,
    )
