import dataclasses

import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager, event_line, final_statistics

CONFIG = CurriculumConfig()
START = CurriculumManager(CONFIG).events[0]


def line(config=None, **changes):
    return event_line(dataclasses.replace(START, **changes), config)


def test_advance():
    shown = line(kind="advance", step=2000, perf_after=0.72341, delta=-0.01561)
    expected = "✅ Advanced curriculum at step 2000. Performance: 0.7234 (delta: -0.0156)"
    assert shown == expected


def test_advance_without_an_evaluation_shows_its_reason():
    shown = line(kind="advance", step=5, reason="3 of 9 scored examples are in")
    assert shown == "✅ Advanced curriculum at step 5. 3 of 9 scored examples are in"


def test_a_tiny_delta_has_no_sign():
    assert "(delta: 0.0000)" in line(kind="advance", perf_after=0.5, delta=-0.00001)


def test_rollback_on_a_drop():
    shown = line(CONFIG, kind="rollback", step=4000, delta=-0.08234, reason="drop", average=0.4)
    assert shown == "🔙 Rolled back curriculum at step 4000. Performance drop: -0.0823"


def test_rollback_on_low_performance():
    changes = {"kind": "rollback", "delta": -0.01, "reason": "low_performance", "average": 0.41}
    shown = line(CONFIG, **changes)
    assert shown.endswith("drop: -0.0100 (low performance: average 0.41 < 0.60)")
    assert line(**changes).endswith("drop: -0.0100 (low performance: average 0.41)")


def test_rollback_on_forgetting():
    changes = {"kind": "rollback", "delta": 0.01, "reason": "forgetting", "perf_before": 0.9}
    changes |= {"mix": {"simple": 1.0}, "strata": {"simple": 0.8, "hard": 0.1}}
    assert line(CONFIG, **changes).endswith("drop: 0.0100 (forgetting: 0.10 >= 0.05)")
    assert line(**changes).endswith("drop: 0.0100 (forgetting: 0.10)")


def test_trial_and_hold():
    shown = line(kind="trial", step=7, to_stage="balanced", perf_before=0.9)
    assert shown == "🧪 Trying stage balanced after step 7. Performance: 0.9000"
    shown = line(kind="hold", step=7, to_stage="simple", rollback_count=3)
    assert shown == "⏸️ Holding stage simple from step 7. Total rollbacks: 3"


def test_without_stages_the_mix_is_shown():
    config = CurriculumConfig(strategy="adaptive")
    changes = {"mix": {"simple": 0.25, "hard": 0.75}, "step": 5, "perf_after": 0.5, "delta": 0.1}
    shown = line(config, kind="advance", reason="adaptive does not roll back", **changes)
    assert shown == "🔀 New mix at step 5: simple 0.25, hard 0.75"
    reason = "adaptive does not roll back; 3 of 9 scored examples are in"
    shown = line(config, kind="advance", reason=reason, **changes)
    assert shown == ("🔀 New mix at step 5: simple 0.25, hard 0.75 (3 of 9 scored examples are in)")
    shown = line(config, kind="start", reason=reason)
    assert shown == (
        "🔀 Mix from the start: simple 1.00, medium 0.00, hard 0.00 (3 of 9 scored examples are in)"
    )
    assert line(config, kind="start", reason="adaptive does not roll back") is None


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, ["Final stage: simple", "Total rollbacks: 0"]),
        (
            {"strategy": "schedule", "schedule": {"steps": [1, 2]}},
            ["Strategy: schedule", "Final stage: simple"],
        ),
        ({"strategy": "adaptive"}, ["Strategy: adaptive"]),
        ({"enabled": False}, ["Strategy: fixed mix"]),
    ],
)
def test_final_statistics_leave_out_what_a_strategy_lacks(settings, lines):
    manager = CurriculumManager(CurriculumConfig.from_dict(settings))
    shown = [text.strip() for text in final_statistics(manager, 8).splitlines()]
    assert shown[2:-3] == lines
    assert shown[-3].startswith("Final weights: {'simple': ")


@pytest.mark.parametrize("kind", ["start", "end"])
def test_start_and_end_have_no_line(kind):
    assert line(kind=kind) is None


def test_final_statistics():
    manager = CurriculumManager(CurriculumConfig(enabled=False))
    assert final_statistics(manager, 15000) == (
        "========================================\n"
        "Final Curriculum Statistics:\n"
        "  Strategy: fixed mix\n"
        "  Final weights: {'simple': 0.2, 'medium': 0.3, 'hard': 0.5}\n"
        "  Total samples used: 15000\n"
        "========================================"
    )
