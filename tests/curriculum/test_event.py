import dataclasses

import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager, event_line, final_statistics

FIELDS = (
    "step, kind, reason, from_stage, to_stage, mix, perf_before, perf_after, delta, "
    "delta_standard_error, progress, progress_standard_error, forgetting, "
    "forgetting_standard_error, average, strata, strata_counts, interval, cooldown_until, "
    "rollback_count, examples_seen"
).split(", ")

CONFIG = CurriculumConfig()
ADAPTIVE = CurriculumConfig(strategy="adaptive")
PROGRESS = CurriculumConfig(decision="progress", trial_steps=5, min_progress=0.01)
START = CurriculumManager(CONFIG).events[0]
LOW = {"kind": "rollback", "delta": -0.01, "reason": "low_performance", "average": 0.41}
FORGETTING = {
    **{"kind": "rollback", "delta": 0.01, "reason": "forgetting", "perf_before": 0.9},
    **{"mix": {"simple": 1.0}, "strata": {"simple": 0.8, "hard": 0.1}},
}
NOTE = "3 of 9 scored examples are in"
MIX = {"mix": {"simple": 0.25, "hard": 0.75}, "step": 5, "perf_after": 0.5, "delta": 0.1}
DOES_NOT = "adaptive does not roll back"


def test_a_record_has_the_fields_in_their_order_and_shares_nothing():
    record = START.to_dict()
    assert list(record) == FIELDS
    record["mix"]["simple"] = 0.0
    assert START.mix["simple"] == 1.0


@pytest.mark.parametrize(
    ("config", "changes", "line"),
    [
        (
            CONFIG,
            {"kind": "advance", "step": 2000, "perf_after": 0.72341, "delta": -0.01561},
            "✅ Advanced curriculum at step 2000. Performance: 0.7234 (delta: -0.0156)",
        ),
        (
            CONFIG,  # a tiny delta has no sign
            {"kind": "advance", "perf_after": 0.5, "delta": -0.00001},
            "✅ Advanced curriculum at step 0. Performance: 0.5000 (delta: 0.0000)",
        ),
        (
            CONFIG,
            {"kind": "rollback", "step": 4000, "delta": -0.08234, "reason": "drop", "average": 0.4},
            "🔙 Rolled back curriculum at step 4000. Performance drop: -0.0823",
        ),
        (CONFIG, LOW, "drop: -0.0100 (low performance: average 0.41 < 0.60)"),
        (CONFIG, FORGETTING, "drop: 0.0100 (forgetting: 0.10 >= 0.05)"),
        # As many digits as show the difference.
        (
            CONFIG,
            LOW | {"average": 0.5996},
            "drop: -0.0100 (low performance: average 0.5996 < 0.6000)",
        ),
        (
            PROGRESS,
            FORGETTING | {"forgetting": 0.0512},
            "drop: 0.0100 (forgetting: 0.051 >= 0.050)",
        ),
        (PROGRESS, FORGETTING | {"forgetting": 0.05}, "drop: 0.0100 (forgetting: 0.05 >= 0.05)"),
        (
            PROGRESS.replace(min_progress=0.0),
            LOW | {"reason": "no_progress: hard", "progress": -0.00003},
            "drop: -0.0100 (no progress: hard -0.00003 < 0.00000)",
        ),
        # By the rule `progress`, the number that it compared.
        (PROGRESS, FORGETTING | {"forgetting": 0.2}, "drop: 0.0100 (forgetting: 0.20 >= 0.05)"),
        (
            PROGRESS,
            LOW | {"reason": "no_progress: hard", "progress": -0.00204},
            "drop: -0.0100 (no progress: hard -0.0020 < 0.0100)",
        ),
        (
            PROGRESS,
            LOW | {"reason": "no_progress", "progress": 0.002},
            "drop: -0.0100 (no progress: 0.0020 < 0.0100)",
        ),
        (
            PROGRESS,
            {"kind": "extend", "step": 12, "to_stage": "balanced"}
            | {"progress": 0.02, "progress_standard_error": 0.015}
            | {"forgetting": -0.00001, "forgetting_standard_error": 0.01},
            "🧪 Extended the trial of stage balanced at step 12: "
            "progress 0.0200 ± 0.0150, forgetting 0.0000 ± 0.0100",
        ),
        (
            CONFIG,
            {"kind": "trial", "step": 7, "to_stage": "balanced", "perf_before": 0.9},
            "🧪 Trying stage balanced after step 7. Performance: 0.9000",
        ),
        (
            CONFIG,
            {"kind": "hold", "step": 7, "to_stage": "simple", "rollback_count": 3},
            "⏸️ Holding stage simple from step 7. Total rollbacks: 3",
        ),
        (
            ADAPTIVE,
            {"kind": "advance", "reason": DOES_NOT, **MIX},
            "🔀 New mix at step 5: simple 0.25, hard 0.75",
        ),
        (
            ADAPTIVE,
            {"kind": "advance", "reason": f"{DOES_NOT}; {NOTE}", **MIX},
            f"🔀 New mix at step 5: simple 0.25, hard 0.75 ({NOTE})",
        ),
        (
            ADAPTIVE,
            {"kind": "start", "reason": f"{DOES_NOT}; {NOTE}"},
            f"🔀 Mix from the start: simple 1.00, medium 0.00, hard 0.00 ({NOTE})",
        ),
    ],
)
def test_the_line_of_an_event(config, changes, line):
    assert event_line(dataclasses.replace(START, **changes), config).endswith(line)


def test_events_without_a_line():
    assert event_line(dataclasses.replace(START, kind="end"), CONFIG) is None
    assert event_line(START, CONFIG) is None
    assert event_line(dataclasses.replace(START, reason=DOES_NOT), ADAPTIVE) is None


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, ["Final stage: simple", "Total rollbacks: 0"]),
        (
            {"strategy": "schedule", "schedule": {"steps": [1, 2]}},
            ["Strategy: schedule", "Final stage: simple"],
        ),
        ({"strategy": "adaptive"}, ["Strategy: adaptive"]),
    ],
)
def test_final_statistics_leave_out_what_a_strategy_lacks(settings, lines):
    manager = CurriculumManager(CurriculumConfig.from_dict(settings))
    shown = [text.strip() for text in final_statistics(manager, 8).splitlines()]
    assert shown[2:-3] == lines
    assert shown[-3].startswith("Final weights: {'simple': ")


def test_final_statistics():
    manager = CurriculumManager(CurriculumConfig(enabled=False))
    assert final_statistics(manager, 15000, num_bad_steps=2) == (
        "========================================\n"
        "Final Curriculum Statistics:\n"
        "  Strategy: fixed mix\n"
        "  Final weights: {'simple': 0.2, 'medium': 0.3, 'hard': 0.5}\n"
        "  Total samples used: 15000\n"
        "  Steps not applied: 2\n"
        "========================================"
    )
