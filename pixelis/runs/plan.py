"""One run of `plan`: print the plan of a training, and write it as JSON."""

import json
from pathlib import Path

from rich.console import Console

from pixelis.config import ModelConfig, PlanFileConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.files import write_atomic
from pixelis.planning.plan import make_plan
from pixelis.planning.report import print_plan


def run_plan(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    settings: PlanFileConfig,
) -> None:
    """Make a plan and print it; write it to `settings.json` if that is set."""
    plan = make_plan(config, model, curriculum, settings)
    print_plan(plan, Console(width=120))
    if settings.json is not None:
        write_atomic(Path(settings.json), json.dumps(plan.as_json(), indent=2) + "\n")
