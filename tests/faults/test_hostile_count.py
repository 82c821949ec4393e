"""How many cases there are."""

from tests.faults.hostile import CASES


def test_there_are_at_least_2000_cases():
    assert sum(CASES.values()) >= 2000
