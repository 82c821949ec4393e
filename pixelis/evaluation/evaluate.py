"""Choose examples, roll out adapter and base on them, compare: what both command lines call."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import datasets

from pixelis.data.encode import Encoder
from pixelis.data.example import Example
from pixelis.data.store import from_row
from pixelis.errors import DataError
from pixelis.evaluation.conversation import Conversation, planted_steps
from pixelis.evaluation.kept_rollouts import KeptRollouts
from pixelis.evaluation.metrics import Comparison, answers_match, paired_comparison
from pixelis.evaluation.rollout import Rollout, hold
from pixelis.evaluation.summary import Evaluation, summarise
from pixelis.evaluation.teacher_forced import tally_examples

__all__ = [
    "Evaluation",
    "EvaluationResult",
    "Progress",
    "Standing",
    "choose_examples",
    "evaluate_model",
]

ADAPTER, BASE, AGAINST = "adapter", "base", "against"


@dataclass(frozen=True)
class Standing:
    """How far an evaluation is, for a progress bar.

    Attributes:
        model: whose rollout ended last: `adapter`, `base` or `against`.
        done: rollouts of all models that are there, planted starts and kept ones included.
        total: rollouts of all models.
        taken: of those done, the ones that a stopped evaluation had kept.
        right: right answers of this model, planted starts left out.
        counted: rollouts of this model that these are of.
    """

    model: str
    done: int
    total: int
    taken: int
    right: int
    counted: int


Progress = Callable[[Standing], None]


@dataclass(frozen=True)
class EvaluationResult:
    """The adapter's evaluation and, where they were asked for, others' on the same examples.

    Attributes:
        examples: what was rolled out.
        adapter: what the trained model did.
        base: what its base did.
        comparison: adapter against base, by group.
        against: what a second adapter did.
        against_comparison: adapter against that one, by group.
    """

    examples: tuple[Example, ...]
    adapter: Evaluation
    base: Evaluation | None = None
    comparison: Mapping[str, Comparison] | None = None
    against: Evaluation | None = None
    against_comparison: Mapping[str, Comparison] | None = None


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
    num_samples: int = 1,
    temperature: float = 0.0,
    planted_errors: bool = False,
    teacher_forced: bool = False,
    base_model: Any | None = None,
    against: Callable[[], AbstractContextManager[Any]] | None = None,
    kept: KeptRollouts | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Roll out a trained model and, beside it, its base and a second adapter on the same examples.

    Args:
        model: with a PEFT adapter, or fully trained.
        encoder: of the model's processor.
        examples: at least one.
        max_operations: see `rollout.hold`.
        max_new_tokens: see `rollout.hold`.
        batch_size: see `rollout.hold`.
        compare_base: evaluate the base as well.
        bootstrap_samples: resamples behind each interval.
        seed: of the intervals, and of drawn tokens.
        num_samples: rollouts of each example.
        temperature: see `rollout.hold`.
        planted_errors: roll out examples that hold a planted wrong step once more, from after it.
        teacher_forced: measure the examples teacher-forced as well.
        base_model: the base where it is another object; without one, the adapter is switched off.
        against: gives the model with a second adapter for a while (`lora.temporary_adapter`).
        kept: where finished rollouts are kept, and taken from.
        progress: called as each model begins and as each rollout ends.

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
    speakers: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        ADAPTER: lambda: nullcontext(model)
    }
    if compare_base:
        speakers[BASE] = lambda: _base_of(model, base_model)
    if against is not None:
        speakers[AGAINST] = against
    conversations = [Conversation(e, n) for e in examples for n in range(num_samples)]
    num_plain = len(conversations)
    if planted_errors:
        conversations += [Conversation(e, planted=True) for e in examples if planted_steps(e)]
    taken = {n: kept.take(n, conversations) if kept is not None else {} for n in speakers}
    num_taken = done = sum(map(len, taken.values()))

    def evaluate(name: str) -> Evaluation:
        known = taken[name]
        right = counted = 0

        def count(place: int, rollout: Rollout) -> None:
            nonlocal right, counted
            if place < num_plain:  # planted starts are another question
                counted += 1
                right += answers_match(rollout.answer, conversations[place].example)

        def tell() -> None:
            if progress is not None:
                total = len(conversations) * len(speakers)
                progress(Standing(name, done, total, num_taken, right, counted))

        for place, rollout in known.items():
            count(place, rollout)
        tell()
        missing = [place for place in range(len(conversations)) if place not in known]

        def finish(position: int, rollout: Rollout) -> None:
            nonlocal done
            done += 1
            if kept is not None:
                kept.add(name, rollout)
            count(missing[position], rollout)
            tell()

        with speakers[name]() as speaking_model:
            found = hold(
                speaking_model,
                encoder,
                [conversations[place] for place in missing],
                max_operations=max_operations,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                temperature=temperature,
                seed=seed,
                progress=finish,
            )
            tallies = (
                tally_examples(speaking_model, encoder, examples, batch_size=batch_size)
                if teacher_forced
                else ()
            )
        known |= dict(zip(missing, found, strict=True))
        rollouts = [known[place] for place in range(len(conversations))]
        return summarise(
            rollouts[:num_plain],
            rollouts[num_plain:],
            examples,
            tallies=tallies,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
        )

    def compare(other: Evaluation | None) -> Mapping[str, Comparison] | None:
        if other is None:
            return None
        return paired_comparison(
            other.rollouts, adapter.rollouts, examples, num_samples=bootstrap_samples, seed=seed
        )

    found = {name: evaluate(name) for name in speakers}
    adapter, base, second = found[ADAPTER], found.get(BASE), found.get(AGAINST)
    return EvaluationResult(
        examples=tuple(examples),
        adapter=adapter,
        base=base,
        comparison=compare(base),
        against=second,
        against_comparison=compare(second),
    )


@contextmanager
def _base_of(model: Any, base_model: Any | None) -> Iterator[Any]:
    """The base of a model: another object, or the model with its adapter switched off."""
    if base_model is not None:
        yield base_model
        return
    with model.disable_adapter():
        yield model
