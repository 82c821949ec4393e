"""Figures of a data set: the distribution of its scores, and examples of each category."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from PIL import Image

from pixelis.data.example import DIFFICULTIES, SAMPLE_TYPES, Example, Step
from pixelis.data_prep.regions import CALL_COLOUR, find_regions
from pixelis.figures import COLOURS

CATEGORY_COLOURS = dict(zip(DIFFICULTIES, COLOURS, strict=False))
WIDTH = 12.0  # inches at 100 dots: 1200 pixels

# The histograms.
BINS = 40
PANELS_IN_ROW = 5  # for the tasks and for the sample types
MAX_PANELS = 15  # of more tasks, the largest are shown
TITLE_LENGTH = 28

# The examples: inches, and points for the size of a text.
LEFT = 0.55
COLUMN = 2.85
PICTURE = 2.6
LINE = 0.16
FRAME_LABEL = 0.16
EXAMPLES_IN_ROW = 4
MAX_FRAMES = 4
MAX_QUESTION_LINES = 5
TEXT_SIZE = 8.5
MAX_TABLE_SIDE = 768  # pixels of a picture in a table

Line = tuple[str, str, str]  # text, colour, weight


def difficulty_figure(meta: Sequence[Mapping[str, Any]], thresholds: Mapping[str, Any]) -> Figure:
    """Draw histograms of the scores, a panel for each task and each sample type.

    Args:
        meta: task, sample_type, difficulty and score of each example.
        thresholds: as in the summary: `values` has two cuts for each task, or for `all` tasks.

    Returns:
        A figure 1200 pixels wide.
    """
    panels = [
        (key, label, _most_frequent([str(row[key]) for row in meta]))
        for key, label in (("task", "task"), ("sample_type", "sample type"))
    ]
    rows = [
        (key, label, names[start : start + PANELS_IN_ROW])
        for key, label, names in panels
        for start in range(0, len(names), PANELS_IN_ROW)
    ]
    figure = Figure(figsize=(WIDTH, 0.9 + 2.4 * max(1, len(rows))), dpi=100, layout="constrained")
    columns = max([1, *(len(names) for _, _, names in rows)])
    grid = figure.subplots(max(1, len(rows)), columns, sharex=True, squeeze=False)
    for each in grid.flat:
        each.set_visible(False)
    low, high = _range([float(row["score"]) for row in meta])
    edges = np.linspace(low, high, BINS + 1)
    values = thresholds.get("values") or {}
    for line, (key, label, names) in zip(grid, rows, strict=False):
        for axes, name in zip(line, names, strict=False):
            mine = [row for row in meta if str(row[key]) == name]
            _histogram(axes, mine, edges)
            title = textwrap.shorten(name.replace("_", " "), TITLE_LENGTH, placeholder="...")
            axes.set_title(f"{title}\nn = {len(mine):,}", fontsize=9)
            shared = values.get("all", ())
            for cut in values.get(name, shared) if key == "task" else shared:
                if cut is not None:
                    axes.axvline(cut, color="#222222", linestyle=":", linewidth=1.4)
        line[0].set_ylabel(f"examples, by {label}", fontsize=9)
    for column in grid.T:
        shown = [axes for axes in column if axes.get_visible()]
        if shown:
            shown[-1].tick_params(labelbottom=True)
    figure.supxlabel("difficulty score (0 easy to 1 hard)", fontsize=10)
    handles: list[Any] = [Patch(color=c, label=name) for name, c in CATEGORY_COLOURS.items()]
    handles.append(Line2D([], [], color="#222222", linestyle=":", label="threshold"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _most_frequent(kinds: Sequence[str]) -> list[str]:
    """Return the most frequent names: sample types in their usual order, others by name."""
    largest = [name for name, _ in Counter(sorted(kinds)).most_common(MAX_PANELS)]
    order = {name: index for index, name in enumerate(SAMPLE_TYPES)}
    return sorted(largest, key=lambda name: (order.get(name, len(order)), name))


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Return the range of the scores, widened to tenths: most of [0, 1] is often empty."""
    if not scores:
        return 0.0, 1.0
    low, high = np.floor(min(scores) * 10) / 10, np.ceil(max(scores) * 10) / 10
    return float(low), float(high if high > low else low + 0.1)


def _histogram(axes: Axes, rows: Sequence[Mapping[str, Any]], edges: Any) -> None:
    axes.set_visible(True)
    layers = [[float(r["score"]) for r in rows if r["difficulty"] == d] for d in DIFFICULTIES]
    # One outline per category: a patch for each bar would take a second over all panels.
    below = np.zeros(len(edges) - 1)
    for layer, colour in zip(layers, CATEGORY_COLOURS.values(), strict=True):
        top = below + np.histogram(layer, edges)[0]
        axes.stairs(top, edges, baseline=below, fill=True, color=colour)
        below = top
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
    rows = {
        name: [(each, _caption(each)) for each in examples_by_category[name][:EXAMPLES_IN_ROW]]
        for name in DIFFICULTIES
        if examples_by_category.get(name)
    }
    heights = [
        PICTURE + LINE * max(len(caption) for _, caption in shown) + 0.5 for shown in rows.values()
    ]
    figure = Figure(figsize=(WIDTH, sum(heights) or 1.0), dpi=100)
    top = sum(heights)
    for (name, shown), height in zip(rows.items(), heights, strict=True):
        colour = CATEGORY_COLOURS[name]
        bar = _to_shares(figure, 0.1, top - height + 0.1, 0.07, height - 0.2)
        figure.add_artist(Rectangle(bar[:2], *bar[2:], color=colour))
        middle = _to_shares(figure, 0.32, top - height / 2)
        style: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "center", "weight": "bold"}
        figure.text(middle[0], middle[1], name, color=colour, fontsize=14, **style)
        for column, (example, caption) in enumerate(shown):
            left = LEFT + column * COLUMN
            _draw_images(figure, example, left, top - 0.15)
            _write_caption(figure, caption, left, top - 0.15 - PICTURE - 0.08)
        top -= height
    return figure


def _to_shares(
    figure: Figure, x: float, y: float, width: float = 0.0, height: float = 0.0
) -> tuple[float, float, float, float]:
    """Convert inches into shares of the figure."""
    w, h = figure.get_size_inches()
    return x / w, y / h, width / w, height / h


def _caption(example: Example) -> list[Line]:
    """Return the lines below an example: task, score, question and answer."""
    steps = len(example.trajectory)
    kind = "" if example.sample_type == "positive" else f", {example.sample_type}"
    title = _wrap(f"{example.task}{kind}".replace("_", " "), 1, "normal")
    score = f"score {example.difficulty_score:.2f}, {steps} step{'s' * (steps != 1)}"
    question = _wrap(example.question, MAX_QUESTION_LINES, "normal")
    answer = _wrap(f"answer: {example.answer}", 2, "bold")
    return [
        *((line, "#555555", "normal") for line in [*title, score]),
        *((line, "#000000", "normal") for line in question),
        *((line, "#000000", "bold") for line in answer),
    ]


def _write_caption(figure: Figure, caption: Sequence[Line], left: float, top: float) -> None:
    for number, (text, colour, weight) in enumerate(caption):
        x, y, _, _ = _to_shares(figure, left, top - number * LINE)
        style: dict[str, Any] = {"weight": weight, "va": "top", "parse_math": False}
        figure.text(x, y, text, color=colour, fontsize=TEXT_SIZE, **style)


@lru_cache(maxsize=4096)
def _width(text: str, weight: str) -> float:
    """Return the width of a text in inches."""
    font = FontProperties(size=TEXT_SIZE, weight=weight)
    width = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return float(width) / 72


def _wrap(text: str, max_lines: int, weight: str) -> list[str]:
    """Split a text into lines that fit under the picture; three dots end a text cut short."""
    limit = COLUMN - 0.2
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer, weight) <= limit:
            lines[-1] = longer
            continue
        while _width(word, weight) > limit:  # longer than a line
            size = next(n for n in range(len(word), 0, -1) if _width(word[:n], weight) <= limit)
            lines.append(word[:size])
            word = word[size:]
        lines.append(word)
    lines = [line for line in lines if line]
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while _width(f"{last} ...", weight) > limit:
        last = last[:-1].rstrip()
    return [*lines[: max_lines - 1], f"{last} ..."]


def _draw_images(figure: Figure, example: Example, left: float, top: float) -> None:
    """Draw the image in its square, or several frames in two columns of it, with their marks."""
    count = min(MAX_FRAMES, len(example.images))
    last = len(example.images) - 1
    side = PICTURE if count == 1 else PICTURE / 2 - FRAME_LABEL
    for position in range(count):
        index = round(position * last / max(1, count - 1))
        x = left + position % 2 * (side + 0.1)
        y = top - (position // 2 + 1) * side - position // 2 * FRAME_LABEL
        axes = figure.add_axes(_to_shares(figure, x, y, side, side), anchor="NW")
        image = example.images[index]
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        axes.set_axis_off()
        if count > 1:
            style: dict[str, Any] = {"fontsize": 7, "color": "#555555", "va": "top"}
            axes.text(0, -0.02, f"frame {index + 1}", transform=axes.transAxes, **style)
        _mark(axes, example.trajectory, image, frame=index + 1)


def _mark(axes: Axes, trajectory: Sequence[Step], image: Image.Image, *, frame: int) -> None:
    """Mark the boxes and points of the calls in one frame with the calls' numbers."""
    calls_by_shape: dict[tuple[float, ...], list[int]] = {}
    for number, step in enumerate(trajectory, 1):
        for shape in find_regions(step.arguments, step.result, frame):
            calls_by_shape.setdefault(shape, []).append(number)
    for shape, numbers in calls_by_shape.items():
        x, y = shape[:2]
        if not (0 <= x <= image.width and 0 <= y <= image.height):
            continue
        if len(shape) == 4:
            # matplotlib puts the centres of pixels on integers, and their edges between them.
            outline = Rectangle((x - 0.5, y - 0.5), shape[2] - x, shape[3] - y)
            outline.set(fill=False, edgecolor=CALL_COLOUR, linewidth=1.8)
            axes.add_patch(outline)
        else:
            axes.plot(x, y, marker="o", markersize=5, color=CALL_COLOUR, markeredgecolor="white")
        axes.annotate(
            ",".join(map(str, numbers)),
            (x - 0.5, y - 0.5),
            xytext=(2, -2) if len(shape) == 4 else (4, -4),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="white",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": CALL_COLOUR, "edgecolor": "none"},
        )
    # Marks on the border must not widen the picture.
    axes.set(xlim=(-0.5, image.width - 0.5), ylim=(image.height - 0.5, -0.5))


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
