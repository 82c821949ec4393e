"""A chart as matplotlib draws it."""

import io

from matplotlib.colors import to_rgb

from pixelis.figures import as_figure, samples_drawn, timeline
from pixelis.figures.chart import Chart, Line, Panel


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_it_has_its_size_and_a_legend_with_every_label_once(course):
    figure = as_figure(timeline(course(min_performance=0.6, rollback_threshold=-0.15)))
    content = io.BytesIO()
    figure.savefig(content, format="png")
    header = content.getvalue()[16:24]
    assert (int.from_bytes(header[:4]), int.from_bytes(header[4:])) == (1000, 560)
    assert labels(figure) == [
        "stage easy",
        "advance",
        "rollback",
        "simple",
        "hard",
        "current mix",
        "to beat: before -0.15",
        "next mix at a decision",
        "minimum to advance (0.6)",
        "training loss",
    ]


def test_the_legend_lies_outside_of_the_axes(course):
    figure = as_figure(timeline(course()))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= 1000
    assert all(axes.get_window_extent().x1 < legend.x0 for axes in figure.axes)


def test_axes_say_what_they_show(course):
    lane, lines, loss = as_figure(timeline(course(metric="performance"))).axes
    assert [text.get_text() for text in lane.texts] == ["easy"]
    assert lines.get_ylabel() == "performance (0 to 1)"
    assert (loss.get_xlabel(), loss.get_xlim()) == ("optimiser step", (0, 100))


def test_the_bold_line_is_over_the_thin_ones(course):
    lines = as_figure(timeline(course())).axes[1].lines
    (bold,) = [line for line in lines if line.get_linewidth() == 3.0]
    assert list(bold.get_ydata()) == [0.2, 0.8]
    assert bold.get_zorder() > max(line.get_zorder() for line in lines if line is not bold)


def test_areas_lie_on_each_other_in_their_colours(course, drifting):
    axes = as_figure(samples_drawn(course(examples_per_step=4))).axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["full"]
    assert max(area.get_paths()[0].vertices[:, 1].max() for area in axes.collections) == 200
    lane = as_figure(timeline(drifting)).axes[0]
    # The share of simple at each step, up to the lower layer's upper edge.
    edges = [tuple(map(float, point)) for point in lane.collections[0].get_paths()[0].vertices]
    for step, share in ((0.0, 1.0), (20.0, 0.5), (21.0, 0.25), (50.0, 0.25)):
        assert (step, share) in edges
    assert lane.collections[0].get_facecolor()[0][:3].tolist() == list(to_rgb("#0072B2"))


def test_a_name_with_dollars_is_no_formula():
    panel = Panel([Line("a $x_1$", [(0, 0), (1, 1)], "#000000")], title="b $y$ c")
    figure = as_figure(Chart([panel], 1))
    figure.draw_without_rendering()
    assert labels(figure) == ["a $x_1$"]
    assert figure.axes[0].get_title("left") == "b $y$ c"
    assert not figure.legends[0].get_texts()[0].get_parse_math()
