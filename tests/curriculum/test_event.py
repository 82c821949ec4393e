import dataclasses
import json

import pytest

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumEvent, CurriculumManager

FIELDS = (
    "step, kind, reason, from_stage, to_stage, mix, perf_before, perf_after, delta, "
    "delta_standard_error, average, strata, strata_counts, interval, cooldown_until, "
    "rollback_count, examples_seen"
).split(", ")
START = CurriculumManager(CurriculumConfig()).events[0]


def test_a_record_has_the_fields_in_their_order_is_json_and_shares_nothing():
    record = START.to_dict()
    assert list(record) == FIELDS
    assert CurriculumEvent.from_dict(json.loads(json.dumps(record))) == START
    record["mix"]["simple"] = 0.0
    assert START.mix["simple"] == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        START.step = 3


@pytest.mark.parametrize("record", [None, {**START.to_dict(), "extra": 1}, {"step": 1}])
def test_a_record_of_another_shape_is_rejected(record):
    with pytest.raises(ConfigError, match="A curriculum event must have the fields"):
        CurriculumEvent.from_dict(record)
