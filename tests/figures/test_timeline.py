"""The figures of a curriculum, and the texts under the mouse."""

import pytest

from pixelis.figures import compare_timelines, loss_by_difficulty, samples_drawn, timeline
from pixelis.figures.timeline import count_drawn, event_note


def traces(chart, axis, **having):
    """Label -> points; several lines of one label follow each other."""
    found = {}
    for trace in chart.data:
        drawn = trace["yaxis"] == axis and trace["x"] != [None]
        if drawn and all(trace.get("line", {}).get(key) == value for key, value in having.items()):
            points = list(zip(trace["x"], trace["y"], strict=True))
            found.setdefault(trace["name"], []).append(points)
    return found


def shapes(chart, axis, kind):
    return [
        (shape["x0"], shape["x1"])
        for shape in chart.layout["shapes"]
        if shape["yref"] == f"{axis} domain" and shape["type"] == kind
    ]


def texts(chart):
    return [note["text"] for note in chart.layout["annotations"]]


def legend(chart):
    return {trace["name"] for trace in chart.data}


def test_it_shows_stages_events_strata_the_mix_and_the_loss(make_history):
    chart = timeline(make_history(metric="performance"))
    assert shapes(chart, "y", "rect") == [(0, 50)] and texts(chart) == ["easy"]
    assert traces(chart, "y") == {"advance": [[(50, 0.3)]], "rollback": [[(20, 0.3)]]}
    assert shapes(chart, "y2", "line") == [(20, 20), (50, 50)]
    drawn = traces(chart, "y2")
    assert drawn["simple"] == [[(0, 0.2), (50, 0.8)]]
    assert drawn["hard"] == [[(0, 0.1), (50, 0.4)]]
    assert traces(chart, "y3") == {"training loss": [[(1, 2.0), (2, 1.0)]]}
    assert chart.layout["yaxis3"]["title"]["text"] == "training loss<br>(nats per token)"
    (rollbacks,) = [trace for trace in chart.data if trace["name"] == "rollback"]
    assert "step 20" in rollbacks["hovertext"][0]


def test_the_performance_of_the_mix_is_a_piece_for_each_visit(
    make_history, start, advance, metrics
):
    metrics = metrics | {"train/loss": [(100, 1.0)]}
    drawn = traces(timeline(make_history([start, advance], metrics)), "y2")
    # At the step of the advance, the same strata under the old mix and under the new one.
    assert drawn["current mix"] == [[(0, 0.2), (50, 0.8)], [(50, pytest.approx(0.5))]]


def test_thresholds_are_dotted_where_the_rules_have_them(make_history):
    chart = timeline(make_history(min_performance=0.6, rollback_threshold=-0.15))
    dotted = traces(chart, "y2", dash="dot")
    assert dotted["minimum to advance (0.6)"] == [[(0, 0.6), (100, 0.6)]]
    levels = dotted["to beat: before -0.15"]
    assert [[y for _, y in line] for line in levels] == [
        [pytest.approx(0.55)] * 2,
        [pytest.approx(0.65)] * 2,
    ]
    assert [x for x, _ in levels[0]] == pytest.approx([18.8, 21.2])
    notes = [t["hovertext"] for t in chart.data if t["name"] == "to beat: before -0.15"]
    assert notes[0][0] == "step 20: after 0.4000 had to beat 0.5500"
    assert traces(chart, "y2")["next mix at a decision"] == [[(20, 0.4), (50, 0.7)]]
    assert traces(timeline(make_history()), "y2", dash="dot") == {}


def test_the_level_of_a_trial_goes_along_it(make_history, event, start):
    mix = {"simple": 0.25, "hard": 0.75}
    trial = event(30, "trial", "easy", "full", mix, perf_before=0.8, perf_after=0.5)
    kept = event(40, "advance", "easy", "full", mix, perf_before=0.8, perf_after=0.75, delta=-0.05)
    chart = timeline(make_history([start, trial, kept], rollback_threshold=-0.1))
    (lines,) = traces(chart, "y2", dash="dot").values()
    assert lines == [[(30, pytest.approx(0.7)), (40, pytest.approx(0.7))]]
    assert shapes(chart, "y", "rect") == [(0, 30), (30, 40), (40, 50), (30, 40)]
    assert "trial of the next mix" in legend(chart)


def test_an_extension_is_a_mark_within_its_trial(make_history, event, start):
    mix = {"simple": 0.25, "hard": 0.75}
    numbers = {"perf_before": 0.8, "perf_after": 0.5, "delta": -0.3, "reason": "unclear"}
    numbers |= {"progress": 0.02, "progress_standard_error": 0.015, "forgetting": -0.01}
    trial = event(30, "trial", "easy", "full", mix)
    extend = event(35, "extend", "easy", "full", mix, **numbers)
    kept = event(40, "advance", "easy", "full", mix, perf_before=0.8, perf_after=0.75, delta=-0.05)
    chart = timeline(make_history([start, trial, extend, kept], rollback_threshold=-0.1))
    assert traces(chart, "y")["trial extended"] == [[(35, 0.3)]]
    assert shapes(chart, "y", "rect") == [(0, 30), (30, 40), (40, 50), (30, 40)]
    # The level to beat goes along the whole trial; nothing was decided at its extension.
    drawn = traces(chart, "y2")
    assert drawn["to beat: before -0.1"] == [[(30, pytest.approx(0.7)), (40, pytest.approx(0.7))]]
    assert drawn["next mix at a decision"] == [[(40, 0.75)]]
    assert event_note(extend).split("<br>")[-1] == "progress +0.0200 ± 0.0150, forgetting -0.0100"


def test_a_hold_is_beside_the_rollback_of_its_step(make_history, event, start, rollback):
    hold = event(20, "hold", "easy", "easy", {"simple": 1.0})
    marks = traces(timeline(make_history([start, rollback, hold])), "y")
    assert marks == {"rollback": [[(20, 0.3)]], "hold": [[(20, 0.1)]]}


def test_a_stage_too_short_for_its_name_is_named_in_the_legend_only(make_history, event, start):
    late = event(99, "advance", "easy", "full", {"simple": 1.0})
    end = event(100, "end", "full", "full", {"simple": 1.0})
    chart = timeline(make_history([start, late, end]))
    assert texts(chart) == ["easy"] and "stage full" in legend(chart)


def test_without_measurements_or_loss_there_is_the_lane(make_history, start):
    chart = timeline(make_history([start], {}, max_steps=10))
    assert "yaxis2" in chart.layout and "yaxis3" not in chart.layout
    assert chart.layout["xaxis"]["range"] == [0, 10]


def test_a_strategy_without_stages_shows_its_mix_in_their_place(drifting):
    chart = timeline(drifting)
    assert chart.layout["yaxis"]["title"]["text"] == "mix"
    assert traces(chart, "y")["simple"] == [[(0, 1.0), (20, 0.5), (21, 0.25), (50, 0.25)]]
    colours = {(t["name"], t["line"]["color"]) for t in chart.data if t["name"] != "current mix"}
    assert len(colours) == 3  # simple and hard have one colour each, the loss its own
    (piece,) = traces(chart, "y2")["current mix"]
    # Each point under the mix that the step was trained on.
    assert [step for step, _ in piece] == [0, 20, 21, 50]
    assert [value for _, value in piece] == pytest.approx([0.8, 0.8, 0.6, 0.5])


def test_trainings_are_compared_on_one_axis_in_the_same_colours(make_history, event, start):
    other = event(0, "start", None, "full", {"hard": 1.0})
    end = event(90, "end", "full", "full", {"hard": 1.0})
    leap = event(50, "advance", "easy", "full", {"hard": 1.0})
    histories = {
        "a": make_history([start, leap, end]),
        "b": make_history([other, end], max_steps=140),
    }
    chart = compare_timelines(histories)
    assert [text for text in texts(chart) if "<b>" in text] == ["<b>a</b>", "<b>b</b>"]
    assert chart.layout["xaxis"]["range"] == [0, 140] and chart.size == (1000, 640)
    lanes = [s for s in chart.layout["shapes"] if s["yref"] in ("y domain", "y3 domain")]
    easy, full, same = [shape["fillcolor"] for shape in lanes]
    assert full == same != easy


def test_examples_drawn_follow_the_mixes(make_history, start, advance, metrics, drifting):
    metrics = metrics | {"train/loss": [(100, 1.0)]}
    history = make_history([start, advance], metrics, examples_per_step=4)
    assert count_drawn(history) == [
        (0, {"simple": 0, "hard": 0}),
        (50, {"simple": 200, "hard": 0}),
        (100, {"simple": 250, "hard": 150}),
    ]
    chart = samples_drawn(history)
    assert traces(chart, "y")["hard"] == [[(0, 0), (50, 0), (100, 150)]]
    assert shapes(chart, "y", "line") == [(50, 50)] and texts(chart) == ["full"]
    assert count_drawn(drifting)[-1] == (
        50,
        {"simple": pytest.approx(20 + 0.5 + 0.25 * 29), "hard": pytest.approx(0.5 + 0.75 * 29)},
    )
    assert shapes(samples_drawn(drifting), "y", "line") == []
    assert count_drawn(make_history([], {})) == []


def test_losses_by_difficulty_over_the_stages(make_history):
    chart = loss_by_difficulty(make_history())
    assert traces(chart, "y") == {
        "simple": [[(0, 1.5), (50, 0.5)]],
        "hard": [[(0, 2.0), (50, 1.0)]],
    }
    assert shapes(chart, "y", "rect") == [(0, 50)]


def test_the_note_of_an_event(rollback, advance, start, event):
    assert event_note(rollback).split("<br>") == [
        "<b>step 20: rollback</b> (drop)",
        "stage easy",
        "before 0.7000, after 0.4000, delta -0.3000",
        "simple 0.700 · hard 0.300",
        "rollbacks so far: 1",
        "no attempt before step 40",
    ]
    assert "stage easy → full" in event_note(advance)
    assert event_note(start) == "<b>step 0: start</b><br>stage easy"
    bad = event(1, "start", None, "<i>a</i>", {}, strata={"<i>": 1.0})
    assert "<i>" not in event_note(bad)
