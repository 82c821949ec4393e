"""ablate: the same budget for a uniform mix and several curricula, over several seeds."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import INTERRUPTED, parse_arguments, run_cli
from pixelis.experiments.arms import build_curriculum, check_arms
from pixelis.runs.missing_data import is_missing, load_prep
from pixelis.training.distributed import check_launcher


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, check every arm, make missing data, and run the comparison."""
    config, model = parse_arguments("ablate", argv)
    check_launcher()
    check_arms(config.arm_changes)
    for arm, changes in config.arm_changes.items():
        build_curriculum(arm, config.curriculum, config.training.max_steps, changes)
    data_dir = Path(config.data.path)
    prep = load_prep(data_dir, config.data.prep) if is_missing(data_dir) else None

    from pixelis.runs.ablate import run_ablation
    from pixelis.runs.prepare import make_data
    from pixelis.training.inputs import check_model, trusted_digests

    check_model(model.model)
    trusted_digests(config.data.trusted_path)  # an error before the minutes of making data
    if prep is not None:
        make_data(prep, data_dir, missing_from=config.data.prep)
    try:
        run_ablation(config, model)
    except (KeyboardInterrupt, SystemExit):  # SystemExit: SIGTERM
        print("interrupted; every finished training is kept: go on with the same command")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
