"""What one model did on the chosen examples: its rollouts, and every number made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixelis.data.example import Example
from pixelis.evaluation.calls import call_fractions
from pixelis.evaluation.groups import group_indices, without_cells
from pixelis.evaluation.intervals import Fraction, Score, ratio_table
from pixelis.evaluation.judgement import correction_fractions, detection_fractions
from pixelis.evaluation.matching import score_answer
from pixelis.evaluation.metrics import accuracy_table, rate_table
from pixelis.evaluation.repeats import repeat_fractions
from pixelis.evaluation.teacher_forced import forced_fractions
from pixelis.evaluation.trajectory_match import operation_fractions
from pixelis.evaluation.turns import ANSWERED, Rollout
from pixelis.evaluation.validation import Tally


@dataclass(frozen=True)
class Evaluation:
    """What one model did, by group (`pixelis.evaluation.groups`).

    Attributes:
        rollouts: the first of each example, in the examples' order; accuracy and comparisons are
            about these.
        accuracy: answer accuracy, group -> score.
        rates: how long rollouts are and how they end, group -> rate -> value
            (`metrics.compute_rates`).
        measures: group -> measure -> score (`compute_measures`); no cells.
        samples: all rollouts by example, the first included; empty where each has only one.
        planted: the rollouts with a planted start, of the examples that hold a wrong step.
    """

    rollouts: tuple[Rollout, ...]
    accuracy: Mapping[str, Score]
    rates: Mapping[str, Mapping[str, float]]
    measures: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    samples: tuple[tuple[Rollout, ...], ...] = ()
    planted: tuple[Rollout, ...] = ()


def summarise(
    rollouts: Sequence[Rollout],
    planted: Sequence[Rollout],
    examples: Sequence[Example],
    *,
    tallies: Sequence[Tally] = (),
    bootstrap_samples: int,
    seed: int,
) -> Evaluation:
    """Every number of a model's rollouts.

    Args:
        rollouts: equally many of each example, by example, then by sample.
        planted: those with a planted start.
        examples: at least one.
        tallies: of the examples, teacher-forced; empty where that was not measured.
        bootstrap_samples: resamples behind each interval.
        seed: of the intervals.
    """
    num = len(rollouts) // len(examples)
    firsts = tuple(rollouts[::num])
    samples = tuple(tuple(rollouts[start : start + num]) for start in range(0, len(rollouts), num))
    fractions = compute_measures(firsts, planted, examples)
    if num > 1:
        fractions |= repeat_fractions(samples, examples)
    if tallies:
        fractions |= forced_fractions(tallies)
    groups = group_indices(examples)
    return Evaluation(
        rollouts=firsts,
        accuracy=accuracy_table(firsts, examples, num_samples=bootstrap_samples, seed=seed),
        rates=rate_table(firsts, examples),
        measures=ratio_table(
            fractions, without_cells(groups), num_samples=bootstrap_samples, seed=seed
        ),
        samples=samples if num > 1 else (),
        planted=tuple(planted),
    )


def compute_measures(
    rollouts: Sequence[Rollout], planted: Sequence[Rollout], examples: Sequence[Example]
) -> dict[str, list[Fraction]]:
    """What is measured beside accuracy and rates, one fraction an example.

    Returns:
        `answer_score`: how near answers come, mean over all examples, in [0, 1], no answer scoring
        0 (`matching.score_answer`: ANLS of texts, Biten et al. 2019, ICCV, section 4; intersection
        over union of boxes, Everingham et al. 2010, section 4.2; else 1 where right);
        `steps_to_answer`: operations run before the answer, failed and repeated ones included, mean
        over the rollouts that end in an answer, right or wrong (others, which were cut off, have no
        such number: read it with `outcome_answered`); this project's own, after the number of
        actions that agents are compared by;
        those of `calls.call_fractions`, `trajectory_match.operation_fractions`,
        `judgement.detection_fractions` and `judgement.correction_fractions`.
    """
    pairs = list(zip(rollouts, examples, strict=True))
    return {
        "answer_score": [(score_answer(r.answer, e), 1) for r, e in pairs],
        "steps_to_answer": [
            (r.num_operations, 1) if r.outcome == ANSWERED else None for r in rollouts
        ],
        **call_fractions(rollouts),
        **operation_fractions(rollouts, examples),
        **detection_fractions(rollouts, examples),
        **correction_fractions({r.example_id: r for r in planted}, examples),
    }
