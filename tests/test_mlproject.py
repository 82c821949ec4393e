"""MLproject, conda.yaml and pyproject.toml say the same thing, and nothing that is not so."""

import importlib.metadata
import importlib.util
import re
import string
import tomllib
from pathlib import Path

import pytest
import yaml

import pixelis

ROOT = Path(__file__).parent.parent
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
CONDA = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENTRY_POINTS = MLPROJECT["entry_points"]
DEPENDENCIES = PYPROJECT["project"]["dependencies"]
DEV_DEPENDENCIES = PYPROJECT["project"]["optional-dependencies"]["dev"]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_what_is_declared_is_used_and_what_is_used_is_declared(name):
    # A declared parameter that the command ignores would be recorded by MLflow and have no effect.
    entry = ENTRY_POINTS[name]
    used = {field for _, field, _, _ in string.Formatter().parse(entry["command"]) if field}
    assert used == set(entry["parameters"])


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_parameters_are_files_of_the_project_given_as_strings(name):
    for parameter, declared in ENTRY_POINTS[name]["parameters"].items():
        assert declared["type"] == "string"
        assert (ROOT / declared["default"]).is_file() or parameter == "num_processes"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_module_of_an_entry_point_exists(name):
    launcher = r"python|torchrun --standalone --nproc_per_node \{num_processes\}"
    (module,) = re.findall(rf"^(?:{launcher}) -m (\S+)", ENTRY_POINTS[name]["command"])
    assert importlib.util.find_spec(module) is not None
    if name == "sft-distributed":
        assert module == "pixelis.cli.sft"
    elif name != "main":
        assert module == f"pixelis.cli.{name.replace('-', '_')}"


def test_main_is_sft():
    assert ENTRY_POINTS["main"] == ENTRY_POINTS["sft"]


def test_console_scripts_exist():
    for target in PYPROJECT["project"]["scripts"].values():
        assert importlib.util.find_spec(target.partition(":")[0]) is not None


def test_the_environment_of_mlproject_is_conda_yaml_with_an_exact_python():
    assert MLPROJECT["conda_env"] == "conda.yaml"
    python, *rest = [item for item in CONDA["dependencies"] if isinstance(item, str)]
    assert re.fullmatch(r"python=3\.\d+\.\d+", python)
    assert rest == ["pip"]


def test_conda_yaml_and_pyproject_name_the_same_dependencies():
    (pip,) = [item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict)]
    assert pip == DEPENDENCIES == sorted(DEPENDENCIES)
    assert any(dependency.startswith("mlflow==") for dependency in pip)


@pytest.mark.parametrize("dependency", DEPENDENCIES + DEV_DEPENDENCIES)
def test_every_dependency_is_pinned_to_what_is_installed(dependency):
    name, version = dependency.split("==")
    # A CPU-only torch calls itself 2.14.1+cpu.
    assert importlib.metadata.version(name).partition("+")[0] == version


def test_the_version_is_the_packages():
    assert PYPROJECT["project"]["version"] == pixelis.__version__
