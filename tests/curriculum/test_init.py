"""The package is light, and exports what the specification names."""

import json
import subprocess
import sys

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumManager, MixtureSampler


def test_imports_nothing_but_what_reads_a_configuration():
    code = (
        "import sys; before = set(sys.modules); import pixelis.curriculum;"
        "heavy = {'torch', 'numpy', 'mlflow', 'transformers', 'pandas'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


STATE = (
    "stage_index, interval, steps_since_advance, cooldown_until, rollback_count, "
    "rollbacks_in_a_row, history, trial"
).split(", ")


def test_the_names_of_the_specification():
    assert issubclass(ConfigError, ValueError)
    manager = CurriculumManager(CurriculumConfig.from_dict({"advancement_interval": 2}))
    strata = {"simple": 0.9, "medium": 0.8, "hard": 0.7}
    for step in (1, 2):
        assert not manager.attempt_due(step)
        manager.step()
    assert manager.attempt_due(2)
    manager.observe(2, strata)
    event = manager.attempt(2, strata, counts=dict.fromkeys(strata, 8), examples_seen=8)
    # .9 before, .4 * .9 + .4 * .8 + .2 * .7 after
    assert event.to_dict()["delta"] == -0.08 and event.to_dict()["kind"] == "rollback"
    assert (manager.mix, manager.stage, manager.stage_index) == (
        {"simple": 1.0, "medium": 0.0, "hard": 0.0},
        "simple",
        0,
    )
    assert (manager.interval, manager.cooldown_until, manager.rollback_count) == (4, 1002, 1)
    assert [item.kind for item in manager.events] == ["start", "rollback"]
    state = json.loads(json.dumps(manager.state_dict()))
    assert {name: state[name] for name in STATE} == {
        "stage_index": 0,
        "interval": 4,
        "steps_since_advance": 0,
        "cooldown_until": 1002,
        "rollback_count": 1,
        "rollbacks_in_a_row": 1,
        "history": [strata],
        "trial": None,
    }
    manager.load_state_dict(state)
    assert manager.state_dict() == state

    sampler = MixtureSampler(
        sizes={"simple": 100, "medium": 80, "hard": 50}, mix=manager.mix, seed=0
    )
    assert {name for name, _ in sampler.draw(5)} == {"simple"}
    sampler.set_mix({"simple": 0.4, "medium": 0.4, "hard": 0.2})
    sampler.set_pool({"simple": [3, 5, 8]})
    drawn = sampler.draw(10)
    assert {index for name, index in drawn if name == "simple"} == {3, 5, 8}
    saved = sampler.state_dict()
    expected = sampler.draw(4)
    sampler.load_state_dict(saved)
    assert sampler.draw(4) == expected
