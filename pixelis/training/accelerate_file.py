"""accelerate's own configuration files: what they set for the processes that train together."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import yaml

from pixelis.errors import ConfigError

# What a file may ask for; a machine without GPUs has gloo for each but the last.
KINDS = ("MULTI_GPU", "MULTI_CPU", "FSDP", "DEEPSPEED")
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)


def read_accelerate_file(path: Path, num_processes: int) -> dict[str, str]:
    """The environment variables that `accelerate launch --config_file` would set.

    Each process sets them for itself, whoever started it: then one file serves the key
    `accelerate_config`, torchrun on many machines and accelerate's launcher alike.

    Args:
        path: a YAML or JSON file, such as configs/accelerate/fsdp.yaml.
        num_processes: that train together.

    Raises:
        ConfigError: when the file cannot be read, asks for something that is not supported here, or
            for DeepSpeed where it or a GPU is missing; or when there is one process only.
    """
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    if not path.is_file():
        raise ConfigError(f"accelerate_config: no file {path}")
    try:
        settings = load_config_from_file(str(path))
    except UNREADABLE as error:
        raise ConfigError(f"accelerate_config {path}: {str(error):.300}") from error
    kind = str(getattr(settings.distributed_type, "value", settings.distributed_type))
    if kind not in KINDS:
        raise ConfigError(
            f"accelerate_config {path}: distributed_type must be one of {', '.join(KINDS)}, "
            f"got {kind}"
        )
    if num_processes < 2:
        raise ConfigError(
            f"accelerate_config {path} is for several processes, got 1: set num_processes, or "
            "accelerate_config=null"
        )
    if kind == "DEEPSPEED":
        _check_deepspeed(path)
    words = ["--config_file", str(path), "--num_processes", str(num_processes)]
    words += ["--main_process_port", "0", "--module", "pixelis.cli.sft"]
    try:
        asked, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
        if kind == "DEEPSPEED":
            fields = [
                *settings.deepspeed_config,
                *(["mixed_precision"] * bool(asked.mixed_precision)),
            ]
            asked.deepspeed_fields_from_accelerate_config = ",".join(fields)
            made = prepare_deepspeed_cmd_env(asked)[1]
        else:
            made = prepare_multi_gpu_env(asked)
    except UNREADABLE as error:
        raise ConfigError(f"accelerate_config {path}: {str(error):.300}") from error
    return _changed(made)


def _changed(environment: dict[str, Any]) -> dict[str, str]:
    now = os.environ
    return {
        name: str(value)
        for name, value in environment.items()
        if now.get(name) != str(value) and name != "PYTHONPATH"
    }


def _check_deepspeed(path: Path) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            f"accelerate_config {path} needs DeepSpeed, which is not installed: "
            "pip install -e '.[deepspeed]' (GPUs only), or take configs/accelerate/fsdp.yaml"
        )
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"accelerate_config {path} needs GPUs, and there is none; configs/accelerate/fsdp.yaml "
            "also runs on CPUs"
        )
