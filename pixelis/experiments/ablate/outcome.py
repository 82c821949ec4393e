"""What one training of an arm came to, read back from the file that it ended with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelis.errors import CheckpointError

Mix = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """One training.

    Attributes:
        arm: what was trained.
        seed: of adapter, order, validation subset and test examples.
        test: answer accuracy of the final adapter's rollouts by difficulty, and `all`, in [0, 1];
            empty where no test was made.
        evaluations: (step, strata) in order, on the validation subset.
        num_tokens: tokens that were trained on, padding apart.
        seconds: wall time of training and test; of the last part, where it was gone on with.
        run_id: of the training in the tracker.
    """

    arm: str
    seed: int
    test: Mapping[str, float]
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]
    num_tokens: int
    seconds: float
    run_id: str

    def final_performance(self, mix: Mix) -> float:
        """The last evaluation's performance on a mix."""
        return performance(mix, self.evaluations[-1][1])

    def curve(self, mix: Mix, every: int) -> list[tuple[int, float]]:
        """(step, performance on a mix), at the multiples of `every` and at the last step.

        Evaluations between them are those that a curriculum asked for; another arm has none there.
        """
        last = self.evaluations[-1][0]
        return [
            (step, performance(mix, strata))
            for step, strata in self.evaluations
            if step % every == 0 or step == last
        ]

    def steps_to(self, target: float, mix: Mix, every: int) -> int | None:
        """The first step of the curve at which the performance reaches a target, or None."""
        reached = (step for step, value in self.curve(mix, every) if value >= target)
        return next(reached, None)


def performance(mix: Mix, strata: Mapping[str, float]) -> float:
    """The strata, weighted by a mix."""
    return sum(share * strata[name] for name, share in mix.items() if share > 0)


def read_outcome(arm: str, seed: int, finished: Mapping[str, Any], place: str) -> Outcome:
    """Build an outcome from the content of a training's `finished.json`.

    Raises:
        CheckpointError: when it holds no results, naming the place.
    """
    try:
        results = finished["results"]
        if not results["strata"]:
            raise ValueError("no evaluation")
        return Outcome(
            arm=arm,
            seed=seed,
            test=dict(results["test"]),
            evaluations=tuple((int(step), dict(strata)) for step, strata in results["strata"]),
            num_tokens=int(results["num_tokens"]),
            seconds=float(results["seconds"]),
            run_id=str(finished["run_id"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{place} holds no results of a training; move it away to have it made again"
        ) from error
