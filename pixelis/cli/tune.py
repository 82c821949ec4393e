"""tune: search the curriculum's settings with Optuna, and compare the best on fresh seeds."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import INTERRUPTED, parse_arguments, run_cli
from pixelis.runs.missing_data import is_missing, load_prep
from pixelis.training.distributed import check_launcher


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, check every range, make missing data, and run the search."""
    config, model = parse_arguments("tune", argv)
    check_launcher()
    data_dir = Path(config.data.path)
    prep = load_prep(data_dir, config.data.prep) if is_missing(data_dir) else None

    from pixelis.experiments.tune.spec import SearchSpec
    from pixelis.experiments.tune.storage import open_storage
    from pixelis.runs.prepare import make_data
    from pixelis.runs.tune import check_best, run_search
    from pixelis.training.inputs import check_model

    spec = SearchSpec(config, model)
    spec.check()
    check_model(model.model)
    check_best(spec)
    open_storage(spec.storage)  # an error here comes before the minutes of making data
    if prep is not None:
        make_data(prep, data_dir, missing_from=config.data.prep)
    try:
        run_search(spec)
    except (KeyboardInterrupt, SystemExit):  # SystemExit: SIGTERM
        print("interrupted; every finished trial is kept: go on with the same command")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
