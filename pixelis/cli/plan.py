"""plan: estimate parameters, steps, memory and hours of a training without loading weights."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.curriculum import CurriculumConfig
from pixelis.errors import ConfigError
from pixelis.files import write_atomic


def main(argv: Sequence[str]) -> int:
    """Parse the arguments and print the plan; return 0 whether the training fits or not."""
    config, model, settings = parse_arguments("plan", argv)
    if settings.json is not None and not Path(settings.json).parent.is_dir():
        raise ConfigError(f"json: there is no folder {Path(settings.json).parent}")
    curriculum = CurriculumConfig.from_dict(config.curriculum)
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

    from pixelis.models.load import silence_libraries
    from pixelis.planning.plan import make_plan
    from pixelis.planning.report import print_plan

    silence_libraries()
    plan = make_plan(config, model.model, curriculum, settings)
    print_plan(plan)
    if settings.json is not None:
        write_atomic(Path(settings.json), json.dumps(plan.as_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
