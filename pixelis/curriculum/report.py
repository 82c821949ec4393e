"""What the curriculum says on the console: one line an event, and the block at the end."""

from collections.abc import Mapping

from pixelis.curriculum.config import CurriculumConfig
from pixelis.curriculum.event import CurriculumEvent
from pixelis.curriculum.manager import CurriculumManager
from pixelis.curriculum.performance import compute_performance

RULE = "=" * 40


def event_line(event: CurriculumEvent, config: CurriculumConfig | None = None) -> str | None:
    """Return the console line of an event, None where it has none.

    With the config, the line of a rollback also names the setting that was not met.
    """
    step = event.step
    if event.kind == "advance" and event.perf_after is None:
        return f"✅ Advanced curriculum at step {step}. {event.reason}"
    if event.kind == "advance":
        performance, delta = _fixed(event.perf_after), _fixed(event.delta)
        return f"✅ Advanced curriculum at step {step}. Performance: {performance} (delta: {delta})"
    if event.kind == "rollback":
        drop = f"Performance drop: {_fixed(event.delta)}"
        return f"🔙 Rolled back curriculum at step {step}. {drop}{_explain(event, config)}"
    if event.kind == "trial":
        performance = _fixed(event.perf_before)
        return f"🧪 Trying stage {event.to_stage} after step {step}. Performance: {performance}"
    if event.kind == "hold":
        count = event.rollback_count
        return f"⏸️ Holding stage {event.to_stage} from step {step}. Total rollbacks: {count}"
    return None


def _explain(event: CurriculumEvent, config: CurriculumConfig | None) -> str:
    if event.reason == "low_performance" and event.average is not None:
        limit = "" if config is None else f" < {config.min_performance_for_advance:.2f}"
        return f" (low performance: average {event.average:.2f}{limit})"
    if event.reason == "forgetting" and event.strata is not None:
        # After the rollback, the event's mix is the old one, and perf_before was measured on it.
        kept = float(compute_performance(event.mix, event.strata))
        limit = "" if config is None else f" >= {-config.rollback_threshold:.2f}"
        return f" (forgetting: {(event.perf_before or 0.0) - kept:.2f}{limit})"
    return ""


def _fixed(value: float | None) -> str:
    assert value is not None
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0: a delta of -0.00001 is no "-0.0000"


def final_statistics(manager: CurriculumManager, examples_seen: int) -> str:
    """Return the block that closes a training."""
    return "\n".join(
        [
            RULE,
            "Final Curriculum Statistics:",
            f"  Final stage: {manager.stage}",
            f"  Total rollbacks: {manager.rollback_count}",
            f"  Final weights: {_round(manager.mix)}",
            f"  Total samples used: {examples_seen}",
            RULE,
        ]
    )


def _round(mix: Mapping[str, float]) -> dict[str, float]:
    return {difficulty: round(fraction, 4) for difficulty, fraction in mix.items()}
