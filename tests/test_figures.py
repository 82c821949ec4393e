"""The figures, read back from their matplotlib objects."""

import io
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pixelis.figures import accuracy, samples_drawn, timeline, visits

SIMPLE = {"simple": 1.0, "hard": 0.0}
FULL = {"simple": 0.25, "hard": 0.75}
STRATA = [(0, {"simple": 0.2, "hard": 0.1}), (50, {"simple": 0.8, "hard": 0.4})]


def event(
    step: int, kind: str, source: str | None, to: str, mix: dict[str, float]
) -> dict[str, Any]:
    return {"step": step, "kind": kind, "from_stage": source, "to_stage": to, "mix": mix}


START = event(0, "start", None, "easy", SIMPLE)
ADVANCE = event(50, "advance", "easy", "full", FULL)
ROLLBACK = event(20, "rollback", "easy", "full", SIMPLE)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def size(figure: Figure) -> tuple[int, int]:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    header = content.getvalue()[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])


def test_events_cut_a_training_into_visits() -> None:
    spans = visits([START, ROLLBACK, ADVANCE, event(80, "end", "full", "full", FULL)], 80)
    assert [(v.stage, v.begin, v.end, v.mix, v.trial) for v in spans] == [
        ("easy", 0, 50, SIMPLE, False),
        ("full", 50, 80, FULL, False),
    ]


@pytest.mark.parametrize("rollback_mix", [SIMPLE, FULL])
def test_a_trial_that_is_rolled_back_is_a_visit_of_its_own(rollback_mix: dict[str, float]) -> None:
    trial = event(30, "trial", "easy", "full", FULL)
    back = event(40, "rollback", "easy", "full", rollback_mix)
    spans = visits([START, trial, back], 60)
    assert [(v.stage, v.begin, v.end, v.mix, v.trial) for v in spans] == [
        ("easy", 0, 30, SIMPLE, False),
        ("easy", 30, 40, FULL, True),
        ("easy", 40, 60, SIMPLE, False),
    ]


def test_without_events_there_are_no_visits() -> None:
    assert visits([], 10) == []


def test_the_timeline_shows_stages_events_strata_and_the_mix() -> None:
    figure = timeline(
        [START, ROLLBACK, ADVANCE],
        STRATA,
        [(1, 2.0), (2, 1.0)],
        max_steps=100,
        min_performance_for_advance=0.6,
        metric="token_accuracy",
    )
    assert size(figure) == (1000, 560)
    assert labels(figure) == [
        "stage easy",
        "stage full",
        "advance",
        "rollback",
        "simple",
        "hard",
        "current mix",
        "minimum to advance (0.6)",
    ]
    lane, lines, loss = figure.axes
    assert [text.get_text() for text in lane.texts] == ["easy", "full"]
    assert lines.get_ylabel() == "token accuracy (0 to 1)"
    assert loss.get_ylabel() == "training loss"
    assert loss.get_xlabel() == "optimiser step"
    assert lines.get_xlim() == (0, 100)
    bold = [line for line in lines.lines if line.get_linewidth() == 3.0]
    drawn = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in bold]
    # At the step of the advance, the same strata under the old mix and under the new one.
    assert drawn == [[(0, 0.2), (50, 0.8)], [(50, pytest.approx(0.5))]]


def test_the_timeline_without_loss_or_measurements_still_draws() -> None:
    figure = timeline([START], [], max_steps=10)
    assert size(figure) == (1000, 560)
    assert len(figure.axes) == 2
    assert labels(figure) == ["stage easy"]


def test_a_stage_too_short_for_its_name_is_named_in_the_legend_only() -> None:
    figure = timeline([START, event(99, "advance", "easy", "full", FULL)], STRATA, max_steps=100)
    assert [text.get_text() for text in figure.axes[0].texts] == ["easy"]
    assert "stage full" in labels(figure)


def test_accuracy_groups_base_and_adapter_with_their_intervals() -> None:
    table = [
        {"difficulty": d, "model": m, "accuracy": a, "low": a - 0.1, "high": a + 0.2, "n": 40}
        for m, values in (("base", (0.4, 0.2)), ("adapter", (0.7, 0.6)))
        for d, a in zip(("simple", "hard"), values, strict=True)
    ]
    figure = accuracy(table)
    axes = figure.axes[0]
    assert size(figure) == (1000, 560)
    assert labels(figure) == ["base", "adapter"]
    assert [bar.get_height() for bar in axes.patches] == [0.4, 0.2, 0.7, 0.6]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "simple\n(n = 40)",
        "hard\n(n = 40)",
    ]
    whiskers = [segment for c in axes.collections for segment in c.get_segments()]
    assert [(round(s[0][1], 6), round(s[1][1], 6)) for s in whiskers] == [
        (0.3, 0.6),
        (0.1, 0.4),
        (0.6, 0.9),
        (0.5, 0.8),
    ]


def test_samples_drawn_stacks_difficulties_and_marks_advances() -> None:
    counts = [
        (0, {"simple": 0, "hard": 0}),
        (50, {"simple": 100, "hard": 0}),
        (100, {"simple": 125, "hard": 75}),
    ]
    figure = samples_drawn(counts, [START, ADVANCE], max_steps=100)
    axes = figure.axes[0]
    assert size(figure) == (1000, 560)
    assert sorted(labels(figure)) == ["hard", "simple"]
    assert max(area.get_paths()[0].vertices[:, 1].max() for area in axes.collections) == 200
    assert [text.get_text().strip() for text in axes.texts] == ["full"]


# Without stages


MIXES = [(0, SIMPLE), (20, {"simple": 0.5, "hard": 0.5}), (21, FULL), (80, FULL)]


def test_a_strategy_without_stages_shows_its_mix_in_their_place() -> None:
    figure = timeline([START, ADVANCE], STRATA, max_steps=80, mixes=MIXES)
    assert size(figure) == (1000, 560)
    assert labels(figure) == ["simple", "hard", "current mix"]
    lane, lines = figure.axes
    assert [text.get_text() for text in lane.texts] == [] and lane.get_ylabel() == "mix"
    assert len(lane.collections) == 2
    # The share of simple at each step, up to the lower layer's upper edge.
    edges = [tuple(map(float, point)) for point in lane.collections[0].get_paths()[0].vertices]
    for step, share in ((0.0, 1.0), (20.0, 0.5), (21.0, 0.25), (80.0, 0.25)):
        assert (step, share) in edges
    colours = [layer.get_facecolor()[0][:3] for layer in lane.collections]
    drawn = {line.get_label(): line.get_color() for line in lines.lines}
    assert [to_rgb(drawn[name]) for name in ("simple", "hard")] == [tuple(c) for c in colours]


def test_the_performance_of_a_mix_that_drifts_is_one_line() -> None:
    strata = [(step, {"simple": 0.8, "hard": 0.4}) for step in (0, 20, 21, 50)]
    figure = timeline([START], strata, max_steps=80, mixes=MIXES)
    (bold,) = [line for line in figure.axes[1].lines if line.get_linewidth() == 3.0]
    # Each point under the mix that the step was trained on.
    assert list(bold.get_xdata()) == [0, 20, 21, 50]
    assert list(bold.get_ydata()) == pytest.approx([0.8, 0.8, 0.6, 0.5])
