"""The timeline, alone and in a comparison, and the texts under the mouse."""

import pytest

from pixelis.figures import compare_timelines, timeline
from pixelis.figures.chart import Area, Band, Line, Marks, Text, VerticalLine
from pixelis.figures.draw_html import as_plotly
from pixelis.figures.timeline import event_note, values_note


def of(panel, kind):
    return [item for item in panel.items if isinstance(item, kind)]


def lines(panel):
    """Label -> points; several lines of one label follow each other."""
    found = {}
    for line in of(panel, Line):
        found.setdefault(line.label, []).append(list(line.points))
    return found


def test_it_shows_stages_events_strata_the_mix_and_the_loss(make_history):
    lane, middle, loss = timeline(make_history(metric="performance")).panels
    assert [(b.label, b.begin, b.end) for b in of(lane, Band)] == [("stage easy", 0, 50)]
    assert [text.text for text in of(lane, Text)] == ["easy"]
    assert [(m.label, m.symbol, m.points) for m in of(lane, Marks)] == [
        ("advance", "up", [(50, 0.3)]),
        ("rollback", "down", [(20, 0.3)]),
    ]
    assert [rule.step for rule in of(middle, VerticalLine)] == [20, 50]
    drawn = lines(middle)
    assert drawn["simple"] == [[(0, 0.2), (50, 0.8)]]
    assert drawn["hard"] == [[(0, 0.1), (50, 0.4)]]
    assert lines(loss) == {"training loss": [[(1, 2.0), (2, 1.0)]]}
    assert loss.label == "training loss\n(nats per token)"


def test_the_performance_of_the_mix_is_a_piece_for_each_visit(
    make_history, start, advance, metrics
):
    metrics = metrics | {"train/loss": [(100, 1.0)]}
    drawn = lines(timeline(make_history([start, advance], metrics)).panels[1])
    # At the step of the advance, the same strata under the old mix and under the new one.
    assert drawn["current mix"] == [[(0, 0.2), (50, 0.8)], [(50, pytest.approx(0.5))]]


def test_thresholds_are_dotted_where_the_rules_have_them(make_history):
    panel = timeline(make_history(min_performance=0.6, rollback_threshold=-0.15)).panels[1]
    dotted = [line for line in of(panel, Line) if line.dotted]
    assert [line.label for line in dotted] == [
        "to beat: before -0.15",
        "to beat: before -0.15",
        "minimum to advance (0.6)",
    ]
    levels = [[y for _, y in line.points] for line in dotted]
    assert levels == [[pytest.approx(0.55)] * 2, [pytest.approx(0.65)] * 2, [0.6, 0.6]]
    assert [x for x, _ in dotted[0].points] == pytest.approx([18.8, 21.2])
    assert dotted[0].notes[0] == "step 20: after 0.4000 had to beat 0.5500"
    (rings,) = [marks for marks in of(panel, Marks) if marks.symbol == "ring"]
    assert rings.points == [(20, 0.4), (50, 0.7)]
    assert not [line for line in of(timeline(make_history()).panels[1], Line) if line.dotted]


def test_the_level_of_a_trial_goes_along_it(make_history, event, start):
    mix = {"simple": 0.25, "hard": 0.75}
    trial = event(30, "trial", "easy", "full", mix, perf_before=0.8, perf_after=0.5)
    kept = event(40, "advance", "easy", "full", mix, perf_before=0.8, perf_after=0.75, delta=-0.05)
    chart = timeline(make_history([start, trial, kept], rollback_threshold=-0.1))
    (line,) = [line for line in of(chart.panels[1], Line) if line.dotted]
    assert line.points == [(30, pytest.approx(0.7)), (40, pytest.approx(0.7))]
    hatched = [band for band in of(chart.panels[0], Band) if band.hatched]
    assert [(band.label, band.begin, band.end) for band in hatched] == [
        ("trial of the next mix", 30, 40)
    ]


def test_a_hold_is_beside_the_rollback_of_its_step(make_history, event, start, rollback):
    hold = event(20, "hold", "easy", "easy", {"simple": 1.0})
    marks = of(timeline(make_history([start, rollback, hold])).panels[0], Marks)
    assert {m.label: m.points for m in marks} == {"rollback": [(20, 0.3)], "hold": [(20, 0.1)]}


def test_a_stage_too_short_for_its_name_is_named_in_the_legend_only(make_history, event, start):
    late = event(99, "advance", "easy", "full", {"simple": 1.0})
    end = event(100, "end", "full", "full", {"simple": 1.0})
    lane = timeline(make_history([start, late, end])).panels[0]
    assert [text.text for text in of(lane, Text)] == ["easy"]
    assert "stage full" in [band.label for band in of(lane, Band)]


def test_without_measurements_or_loss_there_is_the_lane(make_history, start):
    chart = timeline(make_history([start], {}, max_steps=10))
    assert [panel.height for panel in chart.panels] == [0.6, 4.0]
    assert chart.last == 10


# Without stages


def test_a_strategy_without_stages_shows_its_mix_in_their_place(drifting):
    lane = timeline(drifting).panels[0]
    assert lane.label == "mix"
    areas = {area.label: area.points for area in of(lane, Area)}
    assert areas["simple"] == [(0, 1.0), (20, 0.5), (21, 0.25), (50, 0.25)]
    assert all(area.step for area in of(lane, Area))
    colours = {line.label: line.colour for line in of(timeline(drifting).panels[1], Line)}
    assert all(colours[area.label] == area.colour for area in of(lane, Area))


def test_the_performance_of_a_mix_that_drifts_is_one_line(drifting):
    (piece,) = lines(timeline(drifting).panels[1])["current mix"]
    # Each point under the mix that the step was trained on.
    assert [step for step, _ in piece] == [0, 20, 21, 50]
    assert [value for _, value in piece] == pytest.approx([0.8, 0.8, 0.6, 0.5])


def test_every_training_has_its_panels_on_one_axis(make_history, event, start):
    end = event(40, "end", "easy", "easy", {"simple": 1.0})
    chart = compare_timelines(
        {"first": make_history(), "second": make_history([start, end], max_steps=140)}
    )
    assert [panel.title for panel in chart.panels] == ["first", "", "second", ""]
    assert chart.last == 140
    assert chart.size == (1000, 640)


def test_a_stage_has_one_colour_in_all(make_history, event, start):
    other = event(0, "start", None, "full", {"hard": 1.0})
    end = event(90, "end", "full", "full", {"hard": 1.0})
    leap = event(50, "advance", "easy", "full", {"hard": 1.0})
    chart = compare_timelines(
        {"a": make_history([start, leap, end]), "b": make_history([other, end])}
    )
    bands = [item for panel in chart.panels for item in panel.items if isinstance(item, Band)]
    colours = {band.label: band.colour for band in bands}
    assert len(set(colours.values())) == 2
    assert all(colours[band.label] == band.colour for band in bands)


def test_the_panels_of_twelve_trainings_stand_below_each_other_in_the_page_too(
    make_history, event, start
):
    end = event(40, "end", "easy", "easy", {"simple": 1.0})
    one = make_history([start, end])
    layout = as_plotly(compare_timelines({f"run {i}": one for i in range(12)}))["layout"]
    domains = [axis["domain"] for key, axis in layout.items() if key.startswith("yaxis")]
    assert len(domains) == 24
    heights = [high - low for low, high in domains]
    assert min(heights) > 0 and sum(heights) > 0.6
    for (low, _), (_, below) in zip(domains, domains[1:], strict=False):
        assert low > below


def test_a_rollback_says_what_and_why(rollback):
    assert event_note(rollback).split("<br>") == [
        "<b>step 20: rollback</b> (drop)",
        "stage easy",
        "before 0.7000, after 0.4000, delta -0.3000",
        "simple 0.700 · hard 0.300",
        "rollbacks so far: 1",
        "no attempt before step 40",
    ]


def test_an_advance_names_both_stages(advance, start):
    assert "stage easy → full" in event_note(advance)
    assert event_note(start) == "<b>step 0: start</b><br>stage easy"


def test_names_cannot_bring_markup_in(event):
    assert "<i>" not in event_note(event(1, "start", None, "<i>a</i>", {}))
    assert values_note({"<i>": 1.0}) == "&lt;i&gt; 1.000"
