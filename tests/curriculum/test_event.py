import dataclasses
import json

import pytest

from pixelis.curriculum import ConfigError, CurriculumConfig, CurriculumEvent, CurriculumManager
from pixelis.curriculum.event import compute_numbers

FIELDS = (
    "step, kind, reason, from_stage, to_stage, mix, perf_before, perf_after, delta, "
    "delta_standard_error, average, strata, strata_counts, interval, cooldown_until, "
    "rollback_count, examples_seen"
).split(", ")


def start():
    return CurriculumManager(CurriculumConfig()).events[0]


def test_fields_in_their_order():
    assert list(start().to_dict()) == FIELDS
    assert [item.name for item in dataclasses.fields(CurriculumEvent)] == FIELDS


def test_to_dict_is_json_and_shares_nothing():
    event = start()
    record = event.to_dict()
    assert CurriculumEvent.from_dict(json.loads(json.dumps(record))) == event
    record["mix"]["simple"] = 0.0
    assert event.mix["simple"] == 1.0


def test_events_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        start().step = 3


@pytest.mark.parametrize("change", [{"extra": 1}])
def test_a_record_of_another_shape_is_rejected(change):
    with pytest.raises(ConfigError, match="A curriculum event must have the fields"):
        CurriculumEvent.from_dict({**start().to_dict(), **change})
    with pytest.raises(ConfigError, match="A curriculum event must have the fields .* got None"):
        CurriculumEvent.from_dict(None)


def test_numbers_are_null_where_nothing_was_measured():
    numbers = compute_numbers(None, {"simple": 0.5}, {"simple": 3})
    assert set(numbers.values()) == {None}
