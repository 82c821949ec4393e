"""What is said about an event or a measurement where the mouse is over it."""

from collections.abc import Mapping
from html import escape

from pixelis.figures.stage_visits import Event

NEW_LINE = "<br>"


def event_note(event: Event) -> str:
    """Step, kind, reason, stages, performance before and after, strata."""
    kind, reason = event["kind"], event.get("reason")
    lines = [f"<b>step {event['step']}: {kind}</b>" + (f" ({escape(reason)})" if reason else "")]
    source, target = event.get("from_stage"), event.get("to_stage")
    named = dict.fromkeys(escape(str(name)) for name in (source, target) if name)
    lines.append(f"stage {' → '.join(named)}")
    if event.get("delta") is not None:
        before, after = event["perf_before"], event["perf_after"]
        lines.append(f"before {before:.4f}, after {after:.4f}, delta {event['delta']:+.4f}")
    if event.get("strata"):
        lines.append(values_note(event["strata"]))
    if event.get("rollback_count"):
        lines.append(f"rollbacks so far: {event['rollback_count']}")
    if kind == "rollback" and event.get("cooldown_until") is not None:
        lines.append(f"no attempt before step {event['cooldown_until']}")
    return NEW_LINE.join(lines)


def values_note(values: Mapping[str, float]) -> str:
    """The values of the difficulties on one line."""
    return " · ".join(f"{escape(name)} {value:.3f}" for name, value in values.items())
