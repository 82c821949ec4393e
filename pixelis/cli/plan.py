"""plan: what a training would take, without its weights: parameters, steps, memory, hours."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import ExtraFile, parse_arguments, run_cli
from pixelis.config import ModelFileConfig, PlanFileConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.files import write_atomic


def main(argv: Sequence[str]) -> int:
    """Parse, plan, print; 0 whether it fits or not: `--json FILE` says which, for scripts."""
    arguments = parse_arguments(
        argv,
        entry_point="plan",
        description="What a training would take, without loading weights and without the network: "
        "trained parameters, examples of each stage, memory by part on a GPU, hours, and what to "
        "change where it does not fit. Exit code 0 in both cases.",
        config_class=TrainingFileConfig,
        default_config="configs/training_params.yaml",
        extra_files={
            "model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml"),
            "plan": ExtraFile(PlanFileConfig, "configs/plan.yaml"),
        },
    )
    config, plan = arguments.config, arguments.extra["plan"]
    if plan.json is not None and not Path(plan.json).parent.is_dir():
        raise ConfigError(f"json: there is no folder {Path(plan.json).parent}")
    curriculum = CurriculumConfig.from_dict(config.curriculum)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

    from rich.console import Console

    from pixelis.models.load import silence_libraries
    from pixelis.planning.plan import make_plan
    from pixelis.planning.report import print_plan

    silence_libraries()
    made = make_plan(config, arguments.extra["model"].model, curriculum, plan)
    print_plan(made, Console(width=120))
    if plan.json is not None:
        write_atomic(Path(plan.json), json.dumps(made.as_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
