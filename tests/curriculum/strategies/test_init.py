"""Strategies are found in their folder: a file there is all that a new one takes."""

import sys
from pathlib import Path

import pytest

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager, strategies
from pixelis.curriculum.strategies import STRATEGIES, find_strategies

ADDED = Path(__file__).with_name("added")
PACKAGE = "pixelis.curriculum.strategies"


@pytest.fixture
def find(monkeypatch):
    """Find strategies as if a folder's files lay in the package's own."""

    def call(folder):
        monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(folder)])
        for file in folder.glob("*.py"):
            monkeypatch.delitem(sys.modules, f"{PACKAGE}.{file.stem}", raising=False)
        try:
            return find_strategies(strategies.__path__)
        finally:
            for file in folder.glob("*.py"):
                sys.modules.pop(f"{PACKAGE}.{file.stem}", None)
                vars(strategies).pop(file.stem, None)

    return call


def test_those_of_the_specification_are_found():
    names = ["adaptive", "competence", "schedule", "self_paced", "staged"]
    assert list(STRATEGIES) == names
    assert [kind.name for kind in STRATEGIES.values()] == names
    assert [kind.__module__ for kind in STRATEGIES.values()] == [f"{PACKAGE}.{n}" for n in names]


def test_one_file_of_fifteen_lines_adds_a_strategy(find, monkeypatch):
    assert len((ADDED / "reverse.py").read_text().splitlines()) == 15
    with pytest.raises(ConfigError, match="strategy must be one of .*, got 'reverse'"):
        CurriculumConfig.from_dict({"strategy": "reverse"})
    found = find(ADDED)
    assert found.keys() == {*STRATEGIES, "reverse"}
    monkeypatch.setitem(STRATEGIES, "reverse", found["reverse"])
    settings = {"strategy": "reverse", "advancement_interval": 3}
    manager = CurriculumManager(CurriculumConfig.from_dict(settings))
    stages = []
    for step in range(1, 10):
        stages.append(manager.stage)
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, {"simple": 0.9, "medium": 0.5, "hard": 0.1})
    assert stages == ["full"] * 3 + ["balanced"] * 3 + ["simple"] * 3
    assert {event.reason for event in manager.events} == {"reverse does not roll back"}


def test_a_class_without_a_name_of_its_own_is_a_base(find, tmp_path):
    (tmp_path / "zz_base.py").write_text(
        f"from {PACKAGE}.staged import Staged\n\n\nclass Mine(Staged):\n    pass\n"
    )
    assert find(tmp_path) == STRATEGIES


@pytest.mark.parametrize("name", ["os", "os:path", "pixelis.errors:UserError", "../staged"])
def test_a_configuration_names_a_strategy_and_never_code(name):
    with pytest.raises(ConfigError, match="curriculum.strategy must be one of adaptive, compet"):
        CurriculumConfig.from_dict({"strategy": name})
