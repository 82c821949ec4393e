from pixelis.figures import compare_timelines
from pixelis.figures.chart import Band


def test_every_training_has_its_panels_on_one_axis(course, event, start):
    end = event(40, "end", "easy", "easy", {"simple": 1.0})
    chart = compare_timelines({"first": course(), "second": course([start, end], max_steps=140)})
    assert [panel.title for panel in chart.panels] == ["first", "", "second", ""]
    assert chart.last == 140
    assert chart.size == (1000, 640)


def test_a_stage_has_one_colour_in_all(course, event, start):
    other = event(0, "start", None, "full", {"hard": 1.0})
    end = event(90, "end", "full", "full", {"hard": 1.0})
    leap = event(50, "advance", "easy", "full", {"hard": 1.0})
    chart = compare_timelines({"a": course([start, leap, end]), "b": course([other, end])})
    bands = [item for panel in chart.panels for item in panel.items if isinstance(item, Band)]
    colours = {band.label: band.colour for band in bands}
    assert len(set(colours.values())) == 2
    assert all(colours[band.label] == band.colour for band in bands)


def test_the_panels_of_twelve_trainings_stand_below_each_other_in_the_page_too(
    course, event, start
):
    from pixelis.figures.draw_html import as_plotly

    end = event(40, "end", "easy", "easy", {"simple": 1.0})
    one = course([start, end])
    layout = as_plotly(compare_timelines({f"run {i}": one for i in range(12)}))["layout"]
    domains = [axis["domain"] for key, axis in layout.items() if key.startswith("yaxis")]
    assert len(domains) == 24
    heights = [high - low for low, high in domains]
    assert min(heights) > 0 and sum(heights) > 0.6
    for (low, _), (_, below) in zip(domains, domains[1:], strict=False):
        assert low > below
