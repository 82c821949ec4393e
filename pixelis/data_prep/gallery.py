"""A picture of examples: their images with what is looked at, what is asked and answered."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from PIL import Image

from pixelis.data.example import DIFFICULTIES, Example, Step
from pixelis.data_prep.regions import CALL_COLOUR, find_regions
from pixelis.figures import COLOURS

CATEGORY_COLOURS = dict(zip(DIFFICULTIES, COLOURS, strict=False))
# All in inches at 100 dots; text sizes in points.
WIDTH = 12.0
LEFT = 0.55
COLUMN = 2.85
PICTURE = 2.6
LINE = 0.16
FRAME_LABEL = 0.16
EXAMPLES_IN_ROW = 4
MAX_FRAMES = 4
MAX_QUESTION_LINES = 5
TEXT_SIZE = 8.5

Text = tuple[str, str, str]  # words, colour, weight


def examples_figure(examples_by_category: Mapping[str, Sequence[Example]]) -> Figure:
    """Examples of each category with their images, a row each.

    Args:
        examples_by_category: category -> its examples, of which the first EXAMPLES_IN_ROW are
            shown. What their calls look at is marked and numbered in the calls' order.

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
        bar = _share(figure, 0.1, top - height + 0.1, 0.07, height - 0.2)
        figure.add_artist(Rectangle(bar[:2], *bar[2:], color=colour))
        middle = _share(figure, 0.32, top - height / 2)
        style: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "center", "weight": "bold"}
        figure.text(middle[0], middle[1], name, color=colour, fontsize=14, **style)
        for column, (example, caption) in enumerate(shown):
            left = LEFT + column * COLUMN
            _draw_images(figure, example, left, top - 0.15)
            _write(figure, caption, left, top - 0.15 - PICTURE - 0.08)
        top -= height
    return figure


def _share(
    figure: Figure, x: float, y: float, width: float = 0.0, height: float = 0.0
) -> tuple[float, float, float, float]:
    """Inches as shares of the figure."""
    w, h = figure.get_size_inches()
    return x / w, y / h, width / w, height / h


def _caption(example: Example) -> list[Text]:
    """The lines below an example: what it is, how hard, what is asked, and the answer."""
    steps = len(example.trajectory)
    kind = "" if example.sample_type == "positive" else f", {example.sample_type}"
    what = _wrapped(f"{example.task}{kind}".replace("_", " "), 1, "normal")
    score = f"score {example.difficulty_score:.2f}, {steps} step{'s' * (steps != 1)}"
    asked = _wrapped(example.question, MAX_QUESTION_LINES, "normal")
    answer = _wrapped(f"answer: {example.answer}", 2, "bold")
    return [
        *((line, "#555555", "normal") for line in [*what, score]),
        *((line, "#000000", "normal") for line in asked),
        *((line, "#000000", "bold") for line in answer),
    ]


def _write(figure: Figure, caption: Sequence[Text], left: float, top: float) -> None:
    for number, (words, colour, weight) in enumerate(caption):
        x, y, _, _ = _share(figure, left, top - number * LINE)
        style: dict[str, Any] = {"weight": weight, "va": "top", "parse_math": False}
        figure.text(x, y, words, color=colour, fontsize=TEXT_SIZE, **style)


@lru_cache(maxsize=4096)
def _width(text: str, weight: str) -> float:
    """Width of a text in inches."""
    font = FontProperties(size=TEXT_SIZE, weight=weight)
    width = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return float(width) / 72


def _wrapped(text: str, max_lines: int, weight: str) -> list[str]:
    """Lines that fit under the picture; three dots stand for what is left out."""
    limit = COLUMN - 0.2
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer, weight) <= limit:
            lines[-1] = longer
            continue
        while _width(word, weight) > limit:  # no line holds it: cut it
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
    """The image in its square, or several frames in two columns of it, each with its marks."""
    count = min(MAX_FRAMES, len(example.images))
    last = len(example.images) - 1
    side = PICTURE if count == 1 else PICTURE / 2 - FRAME_LABEL
    for place in range(count):
        index = round(place * last / max(1, count - 1))
        x = left + place % 2 * (side + 0.1)
        y = top - (place // 2 + 1) * side - place // 2 * FRAME_LABEL
        axes = figure.add_axes(_share(figure, x, y, side, side), anchor="NW")
        image = example.images[index]
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        axes.set_axis_off()
        if count > 1:
            style: dict[str, Any] = {"fontsize": 7, "color": "#555555", "va": "top"}
            axes.text(0, -0.02, f"frame {index + 1}", transform=axes.transAxes, **style)
        _mark(axes, example.trajectory, image, frame=index + 1)


def _mark(axes: Axes, trajectory: Sequence[Step], image: Image.Image, *, frame: int) -> None:
    """Number what the calls look at in a frame: a box, or a dot at a point."""
    where: dict[tuple[float, ...], list[int]] = {}
    for number, step in enumerate(trajectory, 1):
        for place in find_regions(step.arguments, step.result, frame):
            where.setdefault(place, []).append(number)
    for place, numbers in where.items():
        x, y = place[:2]
        if not (0 <= x <= image.width and 0 <= y <= image.height):
            continue
        if len(place) == 4:
            # Pixels' centres lie on whole numbers, their edges between them.
            outline = Rectangle((x - 0.5, y - 0.5), place[2] - x, place[3] - y)
            outline.set(fill=False, edgecolor=CALL_COLOUR, linewidth=1.8)
            axes.add_patch(outline)
        else:
            axes.plot(x, y, marker="o", markersize=5, color=CALL_COLOUR, markeredgecolor="white")
        axes.annotate(
            ",".join(map(str, numbers)),
            (x - 0.5, y - 0.5),
            xytext=(2, -2) if len(place) == 4 else (4, -4),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="white",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": CALL_COLOUR, "edgecolor": "none"},
        )
    # Marks on the border must not widen the picture.
    axes.set(xlim=(-0.5, image.width - 0.5), ylim=(image.height - 0.5, -0.5))
