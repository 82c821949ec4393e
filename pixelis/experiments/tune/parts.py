"""The three parts of a search: its trials, the baselines that it cannot express, the verdict's.

Each is a study of its own in the same storage: a baseline without a value for what is searched
would leave the sampler nothing that all trials share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pixelis.errors import UserError
from pixelis.experiments.tune.plan import Plan
from pixelis.experiments.tune.settings import Settings
from pixelis.experiments.tune.space import Parameter
from pixelis.experiments.tune.storage import BORN, open_study, storage_errors
from pixelis.experiments.tune.study import BASELINE, enqueue
from pixelis.files import write_atomic

TRIALS, BASELINES, FINAL = "trials", "baselines", "final"
RUN_ID = "pixelis.run_id"
STUDY_FILE = ".study"  # in the folder of a study: which of all that had its name


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: trials, baselines or final: its folder below the study's.
        study: Optuna's.
        space: what is searched; nothing but in the first part.
        settings: how, and how many trials it has.
    """

    name: str
    study: optuna.Study
    space: tuple[Parameter, ...]
    settings: Settings

    @property
    def is_final(self) -> bool:
        """Whether its trials are the verdict's."""
        return self.name == FINAL


@storage_errors()
def open_parts(plan: Plan) -> list[Part]:
    """Open the parts of a study, or make them; baselines wait to be tried first.

    Raises:
        UserError: see `open_study`.
    """
    name, settings = plan.config.study, plan.settings
    search = open_study(
        plan.storage, name, settings, identity=plan.identity, directions=plan.directions
    )
    _check_folder(plan.root, search)
    others = {
        part: open_study(
            plan.storage,
            f"{name} {part}",
            replace(settings, pruner="none"),
            identity=plan.identity,
            directions=plan.directions if part == BASELINES else ("maximize",),
        )
        for part in (BASELINES, FINAL)
    }
    for baseline, values in plan.baselines.items():
        if (point := plan.point_of(baseline)) is not None:
            enqueue(search, baseline, params=point)
        else:
            enqueue(others[BASELINES], baseline, overrides=values)
    parts = [Part(TRIALS, search, plan.space, settings)]
    for part, study in others.items():
        num = len({trial.user_attrs.get(BASELINE) for trial in study.get_trials(deepcopy=False)})
        parts.append(Part(part, study, (), replace(settings, pruner="none", num_trials=num)))
    return parts


def _check_folder(root: Path, study: optuna.Study) -> None:
    """Refuse the trainings that an earlier study of the same name has left in the folder."""
    born, mark = study.user_attrs.get(BORN), root / STUDY_FILE
    if born is None:  # of an earlier version
        return
    if not mark.exists():
        root.mkdir(parents=True, exist_ok=True)
        write_atomic(mark, f"{born}\n")
    elif mark.read_text(encoding="utf-8").strip() != born:
        raise UserError(
            f"the folder {root} holds the trainings of another study {study.study_name!r}, whose "
            "storage is another or was removed; name another study (study=...), another "
            "training.output_dir, or remove the folder"
        )


def enqueue_final(plan: Plan, part: Part, contestants: Mapping[str, Mapping[str, Any]]) -> None:
    """Let each contestant be trained on each fresh seed, once."""
    for seed in plan.final_seeds:
        for name, values in contestants.items():
            enqueue(part.study, final_key(name, seed), overrides=values, seed=seed)


def final_key(name: str, seed: int) -> str:
    """What a trial of the verdict is called."""
    return f"{name} seed {seed}"


def value_of(trials: Sequence[FrozenTrial], baseline: str) -> float | None:
    """The first objective of a baseline that is through."""
    for trial in trials:
        whole = trial.state == TrialState.COMPLETE
        if whole and trial.user_attrs.get(BASELINE) == baseline:
            return float(trial.values[0])
    return None
