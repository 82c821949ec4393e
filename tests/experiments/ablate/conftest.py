import pytest

from pixelis.experiments.ablate.comparison import Outcome


@pytest.fixture
def make_outcome():
    def make(arm, seed, test, strata, seconds=60.0):
        """Strata: (step, value) pairs; every difficulty has the same value."""
        evaluations = tuple(
            (step, {"simple": value, "medium": value, "hard": value}) for step, value in strata
        )
        names = ("simple", "medium", "hard", "all")
        return Outcome(
            arm=arm,
            seed=seed,
            test=dict(zip(names, [*test, sum(test) / 3], strict=True)),
            evaluations=evaluations,
            num_tokens=1000 * (seed + 1),
            seconds=seconds,
            run_id=f"{arm}-{seed}",
        )

    return make
