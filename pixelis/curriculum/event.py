"""The events of a curriculum: their records, their console lines, and the visits they bound."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pixelis.curriculum.performance import compute_delta_standard_error, compute_performance
from pixelis.curriculum.strategies.base import Decision

if TYPE_CHECKING:  # the manager records events
    from pixelis.curriculum.config import CurriculumConfig
    from pixelis.curriculum.manager import CurriculumManager

RULE = "=" * 40
OPEN = "open"  # the outcome of a visit that has not ended
TRIAL_KINDS = ("trial", "extend")  # kinds of events after which the next stage is tried


@dataclass(frozen=True)
class CurriculumEvent:
    """An event after an optimiser step, with its reason and the numbers of the decision.

    `kind` is start, trial, extend, advance, rollback, hold or end. `from_stage` is the stage before
    the event, `to_stage` the stage whose mix is used after it: the next one for `trial`, `extend`
    and `advance`, the same one for every other kind. `mix`, `interval`, `cooldown_until` and
    `rollback_count` are the values after the event. Progress and forgetting, with their paired
    standard errors, are of a trial's end or extension, whichever rule decides.
    """

    step: int
    kind: str
    reason: str | None
    from_stage: str
    to_stage: str
    mix: dict[str, float]
    perf_before: float | None
    perf_after: float | None
    delta: float | None
    delta_standard_error: float | None
    progress: float | None
    progress_standard_error: float | None
    forgetting: float | None
    forgetting_standard_error: float | None
    average: float | None
    strata: dict[str, float] | None
    strata_counts: dict[str, int] | None
    interval: int
    cooldown_until: int
    rollback_count: int
    examples_seen: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON, fields in their order."""
        return dataclasses.asdict(self)


def compute_numbers(
    decision: Decision | None,
    strata: Mapping[str, float] | None,
    counts: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Compute the measured fields of an event, all null without a measurement."""
    before = decision.perf_before if decision else None
    after = decision.perf_after if decision else None
    average = decision.average if decision else None
    delta = None if before is None or after is None else after - before
    if after is None:
        strata, counts = None, None
    error = None
    if decision and delta is not None and strata and counts:
        error = compute_delta_standard_error(decision.old_mix, decision.new_mix, strata, counts)
    progress, forgetting = (decision.progress, decision.forgetting) if decision else (None, None)
    exact = {
        **{"perf_before": before, "perf_after": after, "delta": delta, "average": average},
        "progress": progress and progress.value,
        "forgetting": forgetting and forgetting.value,
    }
    return {
        **{name: None if value is None else float(value) for name, value in exact.items()},
        "delta_standard_error": error,
        "progress_standard_error": progress and progress.standard_error,
        "forgetting_standard_error": forgetting and forgetting.standard_error,
        "strata": None if strata is None else dict(strata),
        "strata_counts": None if counts is None else dict(counts),
    }


def event_line(event: CurriculumEvent, config: "CurriculumConfig") -> str | None:
    """Return the console line of an event, or None for an event without a line.

    The line of a strategy without stages gives the mix.
    """
    step, kind = event.step, event.kind
    if kind in ("start", "advance") and not config.strategy_class.uses_stages:
        return _mix_line(event)
    if kind == "advance":
        performance, delta = _round_four(event.perf_after), _round_four(event.delta)
        return f"✅ Advanced curriculum at step {step}. Performance: {performance} (delta: {delta})"
    if kind == "rollback":
        drop = f"Performance drop: {_round_four(event.delta)}"
        return f"🔙 Rolled back curriculum at step {step}. {drop}{_missed_limit(event, config)}"
    if kind == "trial":
        performance = _round_four(event.perf_before)
        return f"🧪 Trying stage {event.to_stage} after step {step}. Performance: {performance}"
    if kind == "extend":
        numbers = ", ".join(
            f"{name} {_round_four(value)} ± {_round_four(error)}"
            for name, value, error in (
                ("progress", event.progress, event.progress_standard_error),
                ("forgetting", event.forgetting, event.forgetting_standard_error),
            )
        )
        return f"🧪 Extended the trial of stage {event.to_stage} at step {step}: {numbers}"
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


def _missed_limit(event: CurriculumEvent, config: "CurriculumConfig") -> str:
    """Return the value that decided a rollback, other than the drop, and the limit it missed."""
    reason, _, difficulty = (event.reason or "").partition(": ")
    if reason == "low_performance" and event.average is not None:
        limit = config.min_performance_for_advance
        return f" (low performance: average {_compare(event.average, '<', limit)})"
    if reason == "no_progress" and event.progress is not None:
        values = _compare(event.progress, "<", config.min_progress, num_digits=4)
        return f" (no progress: {f'{difficulty} {values}'.strip()})"
    if reason == "forgetting" and event.strata is not None:
        # After the rollback, the event's mix is the old one, and perf_before was measured on it.
        kept = float(compute_performance(event.mix, event.strata))
        forgetting, limit = (event.perf_before or 0.0) - kept, -config.rollback_threshold
        if config.decision == "progress":
            forgetting = event.forgetting or 0.0
        return f" (forgetting: {_compare(forgetting, '>=', limit)})"
    return ""


def _compare(value: float, sign: str, limit: float, num_digits: int = 2) -> str:
    """Return a comparison as text, with more digits where rounding would make both equal."""
    digits = range(num_digits, 10)  # beyond, floats differ by rounding alone
    enough = (n for n in digits if round(value, n) != round(limit, n))
    n = next(enough, num_digits)
    return f"{value:.{n}f} {sign} {limit:.{n}f}"


def _round_four(value: float | None) -> str:
    assert value is not None
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 turns "-0.0000" into "0.0000"


def final_statistics(
    manager: "CurriculumManager", examples_seen: int, num_bad_steps: int = 0
) -> str:
    """Return the final block of a training; bad steps were counted, but not applied."""
    config = manager.config
    strategy = config.strategy_class
    weights = {difficulty: round(fraction, 4) for difficulty, fraction in manager.mix.items()}
    # The guide fixes the lines of its own strategy; other strategies drop lines that do not apply.
    lines = [] if strategy.rolls_back else [f"  Strategy: {config.strategy_label}"]
    if config.enabled and strategy.uses_stages:
        lines.append(f"  Final stage: {manager.stage}")
    lines += [f"  Total rollbacks: {manager.rollback_count}"] if strategy.rolls_back else []
    lines += [f"  Final weights: {weights}", f"  Total samples used: {examples_seen}"]
    lines += [f"  Steps not applied: {num_bad_steps}"] if num_bad_steps else []
    return "\n".join([RULE, "Final Curriculum Statistics:", *lines, RULE])


@dataclass(frozen=True)
class Visit:
    """One span; the next one begins where it ends.

    A rolled-back trial is a visit of the next stage; a kept trial is the beginning of that stage's
    visit. After a rollback the old stage has another visit.
    """

    index: int  # the number of the visit, from 1
    stage: str  # the stage's name; for a strategy without stages, the strategy's name
    begin: int  # the step after which the mix was used
    end: int | None  # the last step with the mix; None while the visit is open
    mix: Mapping[str, float]  # difficulty -> fraction
    entered_by: str  # the event's kind: start, trial, advance or rollback
    # How it was left: `open`: not yet; `tried_next`: a trial of the next stage began; `advanced`:
    # the next stage began; `rolled_back`: it was a trial, and is undone; `ended`: training ended.
    outcome: str = OPEN
    reason: str | None = None  # the reason of the event that ended the visit
    # Performance by difficulty; None if not measured.
    strata_at_entry: Mapping[str, float] | None = None
    strata_at_exit: Mapping[str, float] | None = None
    delta: float | None = None  # the delta of the decision that ended or kept a trial's visit


def visits(events: Sequence[Mapping[str, Any]]) -> list[Visit]:
    """Return the visits of a training in order; the last one is open until the training ended.

    Args:
        events: the results of `CurriculumEvent.to_dict`.
    """
    spans: list[Visit] = []
    for event in events:
        kind = event["kind"]
        if spans:
            last = spans[-1]
            is_tried = last.entered_by == "trial" and last.delta is None
            is_next = kind == "advance" and not is_tried and event.get("to_stage") != last.stage
            outcome = {
                "end": "ended",
                "trial": "tried_next",
                "advance": "advanced" if is_next else OPEN,
                "rollback": "rolled_back" if is_tried else OPEN,
            }.get(kind, OPEN)
            if is_tried and kind in ("advance", "rollback"):
                spans[-1] = replace(last, delta=event.get("delta"))
            if outcome == OPEN:
                continue
            spans[-1] = replace(
                spans[-1],
                end=event["step"],
                outcome=outcome,
                reason=event.get("reason"),
                strata_at_exit=event.get("strata"),
            )
            if outcome == "ended":
                continue
        spans.append(
            Visit(
                index=len(spans) + 1,
                stage=event.get("to_stage") or "",
                begin=event["step"],
                end=None,
                mix=event.get("mix") or {},
                entered_by=kind,
                strata_at_entry=event.get("strata"),
            )
        )
    return spans
