import pytest

from pixelis.figures import visits

SIMPLE, FULL = {"simple": 1.0, "hard": 0.0}, {"simple": 0.25, "hard": 0.75}


def facts(spans):
    return [(v.stage, v.begin, v.end, v.mix, v.trial) for v in spans]


def test_events_cut_a_training_into_visits(event, start, rollback, advance):
    end = event(80, "end", "full", "full", FULL)
    assert facts(visits([start, rollback, advance, end], 80)) == [
        ("easy", 0, 50, SIMPLE, False),
        ("full", 50, 80, FULL, False),
    ]


@pytest.mark.parametrize("rollback_mix", [SIMPLE, FULL])
def test_a_trial_that_is_rolled_back_is_a_visit_of_its_own(event, start, rollback_mix):
    trial = event(30, "trial", "easy", "full", FULL)
    back = event(40, "rollback", "easy", "full", rollback_mix)
    assert facts(visits([start, trial, back], 60)) == [
        ("easy", 0, 30, SIMPLE, False),
        ("easy", 30, 40, FULL, True),
        ("easy", 40, 60, SIMPLE, False),
    ]


def test_without_events_there_are_no_visits():
    assert visits([], 10) == []
