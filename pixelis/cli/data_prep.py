"""data-prep: make CoTA data and record how it came to be."""

from collections.abc import Sequence
from pathlib import Path

from pixelis.cli.arguments import parse_arguments, run_cli
from pixelis.config import DataPrepConfig, flatten


def main(argv: Sequence[str]) -> int:
    """Parse, open the run, make the data, record it."""
    arguments = parse_arguments(
        argv,
        entry_point="data-prep",
        description="Make chain-of-thought-and-action data with operations run on the pixels.",
        config_class=DataPrepConfig,
        default_config="configs/data_prep.yaml",
    )
    config = arguments.config
    out = Path(config.output_dir)
    from pixelis.cli.making import make_data, record_data
    from pixelis.data.prepare import check_place
    from pixelis.tracking import open_run

    check_place(out)
    with open_run(
        entry_point="data-prep",
        experiment="data_prep",
        run_name=f"data-prep {config.num_samples} {config.source} seed {config.seed}",
        params=flatten(config),
        tags={"pixelis.seed": str(config.seed)},
    ) as recorder:
        summary = make_data(config, out)
        record_data(recorder, out, summary)
        print(recorder.url_hint())
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
