"""The default files: the folder's own, else the package's, which a build takes from configs/."""

import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.config import find_config, packaged_configs
from pixelis.config import load as module

ROOT = Path(__file__).parent.parent.parent


def contents(folder):
    files = sorted(folder.rglob("*.yaml"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.name[:4] != "best"}


@pytest.mark.integration
def test_a_built_package_carries_the_files_of_configs(tmp_path):
    build = ["build_py", "--build-lib", str(tmp_path), "--force", "--quiet"]
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), *build]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "pixelis" / "configs") == contents(ROOT / "configs") != {}


def test_the_package_reads_its_own_copy_and_a_checkout_its_configs(tmp_path, monkeypatch):
    assert packaged_configs() == ROOT / "configs"
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    assert packaged_configs() == tmp_path / "configs"


def test_a_file_that_the_folder_lacks_is_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/smoke/tune.yaml") == ROOT / "configs/smoke/tune.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/plan.yaml").write_text("gpu: L4\n")
    assert find_config("configs/plan.yaml") == Path("configs/plan.yaml")


@pytest.mark.parametrize("path", ["configs/no.yaml", "other/plan.yaml", "plan.yaml", "/configs/x"])
def test_another_path_is_left_as_it_is(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert find_config(path) == Path(path)
