"""The three phases of a search: its baselines, its trials, and the verdict's trainings.

Each phase is an Optuna study of its own in the same storage. In one study, a baseline without a
value for a searched key would leave the sampler no keys that all trials share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.storage import storage_errors
from pixelis.experiments.tune.study import BASELINE, CREATED, SearchStudy, open_study
from pixelis.files import write_atomic

TRIALS, BASELINES, FINAL = "trials", "baselines", "final"  # and their folders below the study's
STUDY_FILE = ".study"  # in a study's folder: an id that tells studies of the same name apart


@dataclass(frozen=True)
class Phases:
    """The studies of a search.

    Attributes:
        trials: The searched trials, with the baselines that lie in the search space.
        baselines: The baselines outside of the search space.
        final: Every contestant of the verdict with every fresh seed.
    """

    trials: SearchStudy
    baselines: SearchStudy
    final: SearchStudy

    def by_name(self) -> dict[str, SearchStudy]:
        """Return the studies in the order in which they are run."""
        return {BASELINES: self.baselines, TRIALS: self.trials, FINAL: self.final}


@storage_errors()
def open_phases(spec: SearchSpec) -> Phases:
    """Open or create the studies of a search; queue the baselines as first trials.

    Raises:
        CheckpointError: See `open_study`.
        UserError: When the storage is gone, or the folder holds another study's trainings.
    """
    name, settings = spec.config.study, spec.settings
    no_pruner = replace(settings, pruner="none")
    trials = open_study(
        spec.storage,
        name,
        settings,
        space=spec.space,
        identity=spec.identity,
        directions=spec.directions,
    )
    _check_folder(spec, trials)
    baselines, final = (
        open_study(
            spec.storage,
            f"{name} {phase}",
            no_pruner,
            identity=spec.identity,
            directions=spec.directions if phase == BASELINES else ("maximize",),
        )
        for phase in (BASELINES, FINAL)
    )
    for baseline, values in spec.baselines.items():
        if (point := spec.point_of(baseline)) is not None:
            trials.enqueue(baseline, params=point)
        else:
            baselines.enqueue(baseline, overrides=values)
    return Phases(trials, _with_all(baselines), _with_all(final))


def enqueue_final(
    spec: SearchSpec, final: SearchStudy, contestants: Mapping[str, Mapping[str, Any]]
) -> SearchStudy:
    """Queue each contestant once with each fresh seed; return the study of these trials."""
    for seed in spec.final_seeds:
        for name, values in contestants.items():
            final.enqueue(final_name(name, seed), overrides=values, seed=seed)
    return _with_all(final)


def final_name(contestant: str, seed: int) -> str:
    """Return the name of a contestant's trial with a seed."""
    return f"{contestant} seed {seed}"


def value_of(trials: Sequence[FrozenTrial], baseline: str) -> float | None:
    """Return the first objective of a baseline that is complete, or None."""
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get(BASELINE) == baseline:
            return float(trial.values[0])
    return None


def _with_all(search: SearchStudy) -> SearchStudy:
    """Return a study whose number of trials is the length of its queue."""
    num_trials = len({trial.user_attrs.get(BASELINE) for trial in search.trials})
    return replace(search, settings=replace(search.settings, num_trials=num_trials))


def _check_folder(spec: SearchSpec, search: SearchStudy) -> None:
    """Refuse a folder with trainings of an earlier study of the same name."""
    created, file = search.study.user_attrs.get(CREATED), spec.root / STUDY_FILE
    if created is None:  # of an earlier version
        return
    if not file.exists():
        spec.root.mkdir(parents=True, exist_ok=True)
        write_atomic(file, f"{created}\n")
    elif file.read_text(encoding="utf-8").strip() != created:
        raise UserError(
            f"the folder {spec.root} holds the trainings of another study {spec.config.study!r}, "
            "whose storage is another or was removed; name another study (study=...), another "
            "training.output_dir, or remove the folder"
        )
