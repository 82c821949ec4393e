"""The console lines of a curriculum: one for each event, and the final statistics."""

from collections.abc import Mapping

from pixelis.curriculum.config import CurriculumConfig
from pixelis.curriculum.event import CurriculumEvent
from pixelis.curriculum.manager import CurriculumManager
from pixelis.curriculum.performance import compute_performance

RULE = "=" * 40


def event_line(event: CurriculumEvent, config: CurriculumConfig | None = None) -> str | None:
    """Return the console line of an event, or None for an event without a line.

    With the config, the line of a rollback also names the limit that was missed, and the line of a
    strategy without stages gives the mix.
    """
    step, kind = event.step, event.kind
    has_stages = config is None or config.strategy_class.uses_stages
    if kind in ("start", "advance") and not has_stages:
        return _mix_line(event)
    if kind == "advance" and event.perf_after is None:
        return f"✅ Advanced curriculum at step {step}. {event.reason}"
    if kind == "advance":
        performance, delta = _round_four(event.perf_after), _round_four(event.delta)
        return f"✅ Advanced curriculum at step {step}. Performance: {performance} (delta: {delta})"
    if kind == "rollback":
        drop = f"Performance drop: {_round_four(event.delta)}"
        return f"🔙 Rolled back curriculum at step {step}. {drop}{_missed_limit(event, config)}"
    if kind == "trial":
        performance = _round_four(event.perf_before)
        return f"🧪 Trying stage {event.to_stage} after step {step}. Performance: {performance}"
    if kind == "hold":
        count = event.rollback_count
        return f"⏸️ Holding stage {event.to_stage} from step {step}. Total rollbacks: {count}"
    return None


def _mix_line(event: CurriculumEvent) -> str | None:
    """Return the line of a strategy without stages; None for a start without a note."""
    _, _, note = (event.reason or "").partition("; ")
    shares = ", ".join(f"{name} {part:.2f}" for name, part in event.mix.items())
    note = f" ({note})" if note else ""
    if event.kind == "start":
        return f"🔀 Mix from the start: {shares}{note}" if note else None
    return f"🔀 New mix at step {event.step}: {shares}{note}"


def _missed_limit(event: CurriculumEvent, config: CurriculumConfig | None) -> str:
    """Return the value that decided a rollback, other than the drop, and the limit it missed."""
    if event.reason == "low_performance" and event.average is not None:
        limit = "" if config is None else f" < {config.min_performance_for_advance:.2f}"
        return f" (low performance: average {event.average:.2f}{limit})"
    if event.reason == "forgetting" and event.strata is not None:
        # After the rollback, the event's mix is the old one, and perf_before was measured on it.
        kept = float(compute_performance(event.mix, event.strata))
        limit = "" if config is None else f" >= {-config.rollback_threshold:.2f}"
        return f" (forgetting: {(event.perf_before or 0.0) - kept:.2f}{limit})"
    return ""


def _round_four(value: float | None) -> str:
    assert value is not None
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 turns "-0.0000" into "0.0000"


def final_statistics(manager: CurriculumManager, examples_seen: int, num_bad_steps: int = 0) -> str:
    """Return the final block of a training; bad steps were counted, but not applied."""
    config = manager.config
    strategy = config.strategy_class
    has_stages = config.enabled and strategy.uses_stages
    weights = _round_mix(manager.mix)
    # The guide fixes the lines of its own strategy; other strategies drop lines that do not apply.
    lines = [] if strategy.rolls_back else [f"  Strategy: {config.strategy_label}"]
    lines += [f"  Final stage: {manager.stage}"] if has_stages else []
    lines += [f"  Total rollbacks: {manager.rollback_count}"] if strategy.rolls_back else []
    lines += [f"  Final weights: {weights}", f"  Total samples used: {examples_seen}"]
    lines += [f"  Steps not applied: {num_bad_steps}"] if num_bad_steps else []
    return "\n".join([RULE, "Final Curriculum Statistics:", *lines, RULE])


def _round_mix(mix: Mapping[str, float]) -> dict[str, float]:
    return {difficulty: round(fraction, 4) for difficulty, fraction in mix.items()}
