"""sft: make missing data, train on the curriculum, evaluate, leave it all in MLflow."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pixelis.cli.arguments import INTERRUPTED, Arguments, ExtraFile, parse_arguments, run_cli
from pixelis.config import ModelFileConfig, TrainingFileConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.runs.missing_data import is_missing, load_prep
from pixelis.training.processes import OtherProcessFailed, Processes, join
from pixelis.training.start import check_num_processes, is_launched, start_processes


def main(argv: Sequence[str]) -> int:
    """Parse, find where to begin, open the run, train, evaluate; in each process of a launcher."""
    if not is_launched():
        config = _parse(argv).config
        if config.num_processes is not None and config.num_processes > 1:
            _accelerate_variables(config, config.num_processes)  # refused before anything starts
            return start_processes("pixelis.cli.sft", argv, config.num_processes)
    processes = join()
    try:
        with processes.together():
            code = _train(argv, processes)
    except OtherProcessFailed:
        return 1  # the one that failed says why
    processes.leave()
    return code


def _parse(argv: Sequence[str]) -> Arguments[TrainingFileConfig]:
    return parse_arguments(
        argv,
        entry_point="sft",
        description="Fine-tune a vision-language model on a curriculum that advances and rolls "
        "back, then evaluate it.",
        config_class=TrainingFileConfig,
        default_config="configs/training_params.yaml",
        extra_files={"model": ExtraFile(ModelFileConfig, "configs/model_arch.yaml")},
    )


def _accelerate_variables(config: TrainingFileConfig, num_processes: int) -> dict[str, str]:
    if config.accelerate_config is None:
        return {}
    from pixelis.training.accelerate_file import read_accelerate_file

    return read_accelerate_file(Path(config.accelerate_config), num_processes)


def _train(argv: Sequence[str], processes: Processes) -> int:
    arguments = _parse(argv)
    config, model = arguments.config, arguments.extra["model"].model
    check_num_processes(config.num_processes, processes.world_size)
    os.environ |= _accelerate_variables(config, processes.world_size)
    curriculum = CurriculumConfig.from_dict(config.curriculum)
    data_dir = Path(config.data.path)
    prep = None
    if processes.on_main(partial(is_missing, data_dir)):
        prep = load_prep(data_dir, config.data.prep)

    from pixelis.runs.prepare import make_data
    from pixelis.runs.train import run_sft
    from pixelis.training.checkpoint import check_whole
    from pixelis.training.inputs import check_model
    from pixelis.training.resume import AUTO
    from pixelis.training.stopping import Stopped

    def make_missing() -> None:
        assert prep is not None
        check_model(model)
        if config.resume not in (None, AUTO):
            check_whole(Path(config.resume))
        make_data(prep, data_dir, missing_from=config.data.prep)

    if prep is not None:
        processes.on_main(make_missing)
    try:
        run_sft(config, model, curriculum, processes)
    except (KeyboardInterrupt, SystemExit) as stopped:  # SystemExit: SIGTERM outside of training
        said = stopped if isinstance(stopped, Stopped) else "interrupted"
        if processes.is_main:
            print(f"{said}\ngo on with the same command and -P resume=auto (or --resume auto)")
        if isinstance(stopped, Stopped):
            processes.on_main(_nothing)  # the first to leave ends the others: not before it is done
        return INTERRUPTED
    return 0


def _nothing() -> None:
    """Wait for the main process, which has come this far when its run is closed."""


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
