"""The files in configs/: each loads, names every key of its class, and says what each is for."""

import importlib.util
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pixelis.cli.arguments import ENTRY_POINTS, parse_arguments
from pixelis.config import (
    CONFIG_FILES,
    DataPrepConfig,
    TrainingFileConfig,
    flatten,
    load_config,
    read_mapping,
    walk_fields,
)
from pixelis.curriculum import CurriculumConfig
from pixelis.experiments.arms import build_curriculum, check_arms

ROOT = Path(__file__).parent.parent
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "SHARD")
CLASSES = {Path(name).stem: kind for name, kind in CONFIG_FILES.items()}
CLASSES["demo_broken_shard"] = CLASSES["ablate"]
ACCELERATE = ROOT / "configs" / "accelerate"  # in accelerate's own format
BEST = {ROOT / "configs" / "best.yaml"}  # what a search left
FILES = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(ACCELERATE.glob("*.yaml")) - BEST)
TRAINING_FILES = [
    file for file in FILES if file.stem.startswith(("training_params", "ablate", "tune", "demo"))
]


def config_class(file):
    return next(kind for name, kind in CLASSES.items() if file.stem.startswith(name))


def load(name):
    file = ROOT / "configs" / name
    return load_config(config_class(file), file)


def flat_keys(tree, prefix=""):
    """Dotted keys of a mapping; what a list holds is its value."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


COMMENTED_KEY = re.compile(r"^( *)(?:- )?(\w+):[^#]*(?:# (.*))?$")


def read_comments(file):
    """The comments beside the keys of a file, by dotted key."""
    comments, parents = {}, []
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := COMMENTED_KEY.match(line):
            indent, name, comment = len(match[1]), match[2], match[3]
            parents = [(depth, parent) for depth, parent in parents if depth < indent]
            parents.append((indent, name))
            if comment:
                comments[".".join(parent for _, parent in parents)] = comment
    return comments


# What stands below these is the user's to name.
OPEN = {"arms", "space", "baselines"}


def expected_keys(kind):
    keys = {key for key, _ in walk_fields(kind)}
    if "curriculum" in keys:
        keys.remove("curriculum")
        keys |= set(flat_keys(CurriculumConfig().to_dict(), "curriculum."))
    return keys - OPEN


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_names_every_key_of_its_class_and_loads(file):
    found = {key for key in flat_keys(read_mapping(file)) if key.split(".")[0] not in OPEN}
    assert found == expected_keys(config_class(file))
    load_config(config_class(file), file)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_key_has_a_comment(file):
    assert expected_keys(config_class(file)) - set(read_comments(file)) == set()


@pytest.mark.parametrize("file", TRAINING_FILES, ids=str)
def test_the_curriculum_of_a_training_file_is_valid(file):
    CurriculumConfig.from_dict(load_config(config_class(file), file).curriculum)


@pytest.mark.parametrize("file", TRAINING_FILES, ids=str)
def test_missing_data_would_be_made_in_the_folder_that_is_then_read(file):
    data = load_config(config_class(file), file).data
    if data.prep is None:  # the demo's folders, which the Makefile makes
        assert file.stem == "demo_broken_shard"
        return
    assert load_config(DataPrepConfig, ROOT / data.prep).output_dir == data.path


def make_demo(*words):
    command = ["make", "--dry-run", "demo", *words]
    # Under `make test` this make would print the folders that it enters and leaves.
    env = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shard", ["answers images", "other", ""])
def test_make_demo_refuses_another_shard_before_it_does_anything(shard):
    done = make_demo(f"SHARD={shard}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"SHARD must be answers, images, noise or clean, got '{shard}'" in done.stderr


def test_make_demo_makes_and_trains_at_the_store_and_reads_nothing_back():
    done = make_demo("STORE=http://away", "SHARD=images", "ARGS=--training.seed 3")
    *_, trusted, shard, ablate, said = done.stdout.splitlines()
    for line in (trusted, shard, ablate):
        assert 'MLFLOW_TRACKING_URI="http://away" pixelis ' in line
    assert "--corrupt.kind images" in shard and ablate.endswith("--training.seed 3")
    assert said.startswith("echo ")


def test_the_demo_changes_the_rollback_alone_and_its_shard_is_wholly_broken():
    demo, prep = load("demo_broken_shard.yaml"), load("data_prep_broken_shard.yaml")
    assert list(demo.arms) == ["rollback", "no_rollback", "uniform"]
    check_arms(demo.arm_changes)
    on, off, uniform = (
        build_curriculum(arm, demo.curriculum, demo.training.max_steps, changes)
        for arm, changes in demo.arm_changes.items()
    )
    assert {key for key in on if on[key] != off[key]} == {"rollback_enabled"}
    assert (on["strategy"], on["rollback_enabled"], uniform["enabled"]) == ("staged", True, False)
    assert (on["decision"], on["rollback_scope"]) == ("progress", "data+weights")
    assert prep.corrupt.share == 1 and demo.data.trusted is not None


def test_what_comes_after_sft_looks_where_it_writes():
    training, evaluation = load("training_params.yaml"), load("evaluate.yaml")
    export, compare = load("export.yaml"), load("compare.yaml")
    assert evaluation.data.path == export.data.path == training.data.path
    assert evaluation.experiment == export.experiment == compare.experiment == training.exp_name


def test_the_files_for_the_7b_hold_the_guides_values():
    training = load("training_params_qwen2_5_vl_7b.yaml")
    guide = load_config(TrainingFileConfig, None)
    assert training.data == guide.data
    # The guide knows no search for a batch size; its 4 x 4 is where the search begins.
    assert training.training == guide.training.replace(auto_batch_size=True)
    assert CurriculumConfig.from_dict(training.curriculum) == CurriculumConfig()
    model = load("model_arch_qwen2_5_vl_7b.yaml").model
    assert model.model_name == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (32, 64, 0.1)
    assert (model.gradient_checkpointing, model.torch_dtype) == (True, "bfloat16")
    assert (model.min_pixels, model.max_pixels) == (56 * 56, 1280 * 28 * 28)
    given = training.training
    assert (given.batch_size, given.gradient_accumulation_steps) == (4, 4)
    assert given.max_length == 4096
    # Nothing that the guide does not ask for.
    assert (model.train_vision, model.train_merger, model.load_in_4bit) == (False, False, False)


@pytest.mark.parametrize("name", ["training_params", "model_arch"])
def test_where_an_embedded_default_differs_from_the_7b_its_comment_says_why(name):
    embedded, guide = flatten(load(f"{name}.yaml")), flatten(load(f"{name}_qwen2_5_vl_7b.yaml"))
    comments = read_comments(ROOT / "configs" / f"{name}.yaml")
    different = {key for key, value in embedded.items() if value != guide[key]}
    different.discard("model.model_name")
    assert {key for key in different if "guide" not in comments[key]} == set()


def test_the_page_of_the_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("page", ROOT / "docs/make_configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.build_page(), (
        "python docs/make_configuration.py"
    )


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if ENTRY_POINTS[name].example])
def test_the_example_of_each_help_can_be_typed(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_arguments(name, shlex.split(ENTRY_POINTS[name].example))
