"""Figures of a data set: the distribution of its scores, and examples of each category."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES, Example
from pixelis.data_prep.regions import LabelledRegion, draw_regions, find_regions
from pixelis.figures import COLOURS, fit_fonts

CATEGORY_COLOURS = dict(zip(DIFFICULTIES, COLOURS, strict=False))
WIDTH = 12.0  # inches at 100 dots: 1200 pixels

# The histograms.
BINS = 40
PANELS_IN_ROW = 5  # for the tasks and for the sample types
MAX_PANELS = 15  # of more tasks, the largest are shown
TITLE_LENGTH = 28

# The examples.
EXAMPLES_IN_ROW = 4
ROW_HEIGHT = 4.2  # inches
PICTURE = 280  # pixels
MAX_FRAMES = 4
LINE_LENGTH = 40
MAX_TABLE_SIDE = 768  # pixels of a picture in a table


def difficulty_figure(facts: pd.DataFrame, thresholds: Mapping[str, Any]) -> Figure:
    """Draw histograms of the scores, a panel for each task and each sample type.

    Args:
        facts: `task`, `sample_type`, `difficulty` and `score` of each example.
        thresholds: as in the summary: `values` has two cuts for each task, or for `all` tasks.

    Returns:
        A figure 1200 pixels wide.
    """
    rows = []
    for key in ("task", "sample_type"):
        # Sample types in their usual order, others by name.
        order = [*SAMPLE_TYPES, *sorted(facts[key].unique())]
        names = sorted(facts[key].value_counts().index[:MAX_PANELS], key=order.index)
        starts = range(0, len(names), PANELS_IN_ROW)
        rows += [(key, names[start : start + PANELS_IN_ROW]) for start in starts]
    figure = Figure(figsize=(WIDTH, 0.9 + 2.4 * len(rows)), dpi=100, layout="constrained")
    columns = max(len(names) for _, names in rows)
    grid = figure.subplots(len(rows), columns, sharex=True, squeeze=False)
    for each in grid.flat:
        each.set_visible(False)
    # The range in tenths, since most of [0, 1] is often empty.
    low, high = np.floor(facts["score"].min() * 10) / 10, np.ceil(facts["score"].max() * 10) / 10
    edges = np.linspace(low, max(high, low + 0.1), BINS + 1)
    values = thresholds.get("values") or {}
    for line, (key, names) in zip(grid, rows, strict=True):
        for axes, name in zip(line, names, strict=False):
            mine = facts[facts[key] == name]
            _histogram(axes, mine, edges)
            title = textwrap.shorten(name.replace("_", " "), TITLE_LENGTH, placeholder="...")
            axes.set_title(f"{title}\nn = {len(mine):,}", fontsize=9, parse_math=False)
            shared = values.get("all", ())
            for cut in values.get(name, shared) if key == "task" else shared:
                if cut is not None:
                    axes.axvline(cut, color="#222222", linestyle=":", linewidth=1.4)
        line[0].set_ylabel(f"examples, by {key.replace('_', ' ')}", fontsize=9)
    for column in grid.T:
        [axes for axes in column if axes.get_visible()][-1].tick_params(labelbottom=True)
    figure.supxlabel("difficulty score (0 easy to 1 hard)", fontsize=10)
    handles: list[Any] = [Patch(color=c, label=name) for name, c in CATEGORY_COLOURS.items()]
    handles.append(Line2D([], [], color="#222222", linestyle=":", label="threshold"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    fit_fonts(figure)
    return figure


def _histogram(axes: Axes, facts: pd.DataFrame, edges: Any) -> None:
    axes.set_visible(True)
    layers = [facts["score"][facts["difficulty"] == name] for name in DIFFICULTIES]
    # Filled outlines: a patch for each bar would take a second over all panels.
    colours = list(CATEGORY_COLOURS.values())
    axes.hist(layers, list(edges), stacked=True, histtype="stepfilled", color=colours)
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def examples_figure(examples_by_category: Mapping[str, Sequence[Example]]) -> Figure:
    """Draw examples of each category with their images, a row for each category.

    Args:
        examples_by_category: category -> its examples, of which the first EXAMPLES_IN_ROW are
            shown. The boxes and points of their calls are marked with the calls' numbers.

    Returns:
        A figure 1200 pixels wide.
    """
    rows = {name: examples_by_category.get(name) or () for name in DIFFICULTIES}
    rows = {name: examples for name, examples in rows.items() if examples}
    height = max(1, len(rows))
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * height), dpi=100, layout="constrained")
    grid = figure.subplots(height, EXAMPLES_IN_ROW, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (name, examples) in zip(grid, rows.items(), strict=False):
        style: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "right", "weight": "bold"}
        style |= {"color": CATEGORY_COLOURS[name], "transform": line[0].transAxes}
        line[0].text(-0.03, 0.5, name, fontsize=14, **style)
        for axes, example in zip(line, examples, strict=False):
            axes.set_title(_caption(example), fontsize=8.5, loc="left", parse_math=False)
            axes.set_anchor("N")
            if example.images:
                axes.imshow(_picture(example))
    fit_fonts(figure)
    return figure


def _caption(example: Example) -> str:
    """Return the lines over an example: task, score, question and answer."""
    steps = len(example.trajectory)
    kind = "" if example.sample_type == "positive" else f", {example.sample_type}"
    texts = [
        (f"{example.task}{kind}".replace("_", " "), 1),
        (f"score {example.difficulty_score:.2f}, {steps} step{'s' * (steps != 1)}", 1),
        (example.question, 5),
        (f"answer: {example.answer}", 2),
    ]
    wrapped = (
        textwrap.wrap(text, LINE_LENGTH, max_lines=limit, placeholder=" ...")
        for text, limit in texts
    )
    return "\n".join(line for lines in wrapped for line in lines)


def _picture(example: Example) -> Image.Image:
    """Return the image, or several frames in two columns, with the calls of each marked."""
    count = min(MAX_FRAMES, len(example.images))
    side = PICTURE if count == 1 else PICTURE // 2
    frames = []
    for position in range(count):
        index = round(position * (len(example.images) - 1) / max(1, count - 1))
        marks = [
            LabelledRegion(region, str(number))
            for number, step in enumerate(example.trajectory, 1)
            for region in find_regions(step.arguments, step.result, index + 1)
        ]
        frames.append(draw_regions(example.images[index], marks, side=side))
    if count == 1:
        return frames[0]
    cell = max(max(frame.size) for frame in frames) + 4
    picture = Image.new("RGB", (2 * cell, -(-count // 2) * cell), "white")
    for position, frame in enumerate(frames):
        picture.paste(frame, (position % 2 * cell, position // 2 * cell))
    return picture


def side_by_side(frames: Sequence[Image.Image]) -> Image.Image:
    """Join frames to one picture for a table, at most MAX_TABLE_SIDE pixels large."""
    width, height = sum(f.width for f in frames) + len(frames) - 1, max(f.height for f in frames)
    strip = Image.new("RGB", (width, height), "white")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + 1
    strip.thumbnail((MAX_TABLE_SIDE, MAX_TABLE_SIDE))  # the data has them in full size
    return strip
