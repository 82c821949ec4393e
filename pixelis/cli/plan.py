"""plan: estimate parameters, steps, memory and hours of a training without loading weights."""

import os
from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and print the plan; return 0 whether the training fits or not."""
    config, model, plan = parse_arguments("plan", argv)
    if plan.json is not None and not Path(plan.json).parent.is_dir():
        raise ConfigError(f"json: there is no folder {Path(plan.json).parent}")
    curriculum = CurriculumConfig.from_dict(config.curriculum)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

    from pixelis.models.load import silence_libraries
    from pixelis.runs.plan import run_plan

    silence_libraries()
    run_plan(config, model.model, curriculum, plan)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
