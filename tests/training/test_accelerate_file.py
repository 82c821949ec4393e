"""accelerate's own files: what they ask for, and what is refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from pixelis.errors import ConfigError
from pixelis.training.accelerate_file import read_accelerate_file

FOLDER = Path(__file__).parent.parent.parent / "configs" / "accelerate"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("deepspeed_zero3", "DEEPSPEED")],
)
def test_accelerate_loads_our_files(name, kind):
    settings = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert isinstance(settings, ClusterConfig)
    assert settings.distributed_type.value == kind
    # How many, and on which machines, is not the file's business.
    assert (settings.num_processes, settings.num_machines) == (-1, 1)


def test_every_key_of_our_files_has_a_comment():
    for file in FOLDER.glob("*.yaml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            given = line.partition("#")[0].strip()
            known = ("compute_environment", "distributed_type", "fsdp_state_dict_type")
            if given and not given.endswith(":") and not given.startswith(known):
                assert "# " in line, f"{file.name}: {given}"


def test_a_file_sets_what_the_trainer_reads(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    fsdp = read_accelerate_file(FOLDER / "fsdp.yaml", 2)
    assert fsdp["ACCELERATE_USE_FSDP"] == "true"
    assert (fsdp["FSDP_VERSION"], fsdp["FSDP_RESHARD_AFTER_FORWARD"]) == ("2", "true")
    assert fsdp["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert {name.partition("_")[0] for name in fsdp} <= {"ACCELERATE", "FSDP", "OMP"}
    assert "ACCELERATE_USE_FSDP" not in read_accelerate_file(FOLDER / "ddp.yaml", 2)


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        (None, 2, r"^accelerate_config: no file .*mine\.yaml$"),
        ("num_machines: 2", 2, "A `distributed_type` must be specified"),
        ("distributed_type: FSDP\nfsdp: {}", 2, r"unknown keys \(\['fsdp'\]\)"),
        ("[1", 2, "while parsing"),
        ("distributed_type: XLA", 2, "distributed_type must be one of MULTI_GPU, .*, got XLA$"),
        ("distributed_type: FSDP", 1, "is for several processes, got 1: set num_processes"),
        (
            "distributed_type: FSDP\nmixed_precision: half",
            2,
            "Unknown mixed_precision mode: half",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, text, number, message):
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_accelerate_file(file, number)


def test_deepspeed_is_refused_where_it_cannot_run():
    if importlib.util.find_spec("deepspeed") is None:
        message = r"zero3\.yaml needs DeepSpeed, .* pip install -e '\.\[deepspeed\]'"
    elif not torch.cuda.is_available():
        message = r"zero3\.yaml needs GPUs, and there is none"
    else:
        pytest.skip("DeepSpeed and a GPU are here")
    with pytest.raises(ConfigError, match=message):
        read_accelerate_file(FOLDER / "deepspeed_zero3.yaml", 2)
