import json

import pytest

from pixelis.curriculum import ConfigError
from pixelis.curriculum.state import CurriculumState, Evaluation, Trial

STRATA = {"simple": 0.9, "hard": 0.1}
STATE = CurriculumState(
    stage_index=1,
    interval=1000,
    steps=70,
    history=[Evaluation(60, STRATA)],
    trial=Trial(60, 500, STRATA),
    memory={"weights": [0.5]},
)


def load(plain, num_stages=3):
    return CurriculumState.from_dict(plain, num_stages, ["simple", "hard"])


def test_to_json_and_back():
    assert load(json.loads(json.dumps(STATE.to_dict()))) == STATE


def test_to_dict_shares_nothing():
    plain = STATE.to_dict()
    plain["history"][0]["simple"] = plain["trial"]["strata"]["simple"] = 0
    plain["memory"]["weights"].append(1)
    assert load(STATE.to_dict()) == STATE


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"interval": 0}, "curriculum state: interval must be an integer >= 1, got 0"),
        ({"steps": 1.5}, "curriculum state: steps must be an integer >= 0, got 1.5"),
        ({"stage_index": 3}, "curriculum state: stage_index must be below 3, the number of stages"),
        ({"history": None}, "curriculum state: history must be a list of strata, with as many"),
        ({"history_steps": []}, "curriculum state: history must be a list of strata, with as many"),
        ({"history": [{"simple": 1}]}, "curriculum state: history must be given for every .*hard"),
        ({"trial": 5}, "curriculum state: trial must be null or the step, interval and strata"),
        ({"trial": {"step": 5}}, "curriculum state: trial must be null or the step, interval"),
        ({"stage_index": 2}, "curriculum state: trial must be .* of a trial of a next stage"),
        ({"memory": None}, "curriculum state: memory must be a mapping, got None"),
    ],
)
def test_rejected(change, text):
    with pytest.raises(ConfigError, match=text):
        load({**STATE.to_dict(), **change})
