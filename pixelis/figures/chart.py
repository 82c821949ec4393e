"""A description of a figure, from which both the PNG and the interactive page are drawn.

A chart is a column of panels with one axis of optimiser steps; a panel has items. The label of an
item is its entry in the legend, which shows every label once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

SIZE = (1000, 560)  # width and height in pixels
# The colours of Okabe and Ito, which colour-blind readers can distinguish; from easy to hard.
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
BANDS = ("#eef3f8", "#dbe6f0", "#c8d8e6", "#b4cadc", "#a1bcd2")
DARK = "#111111"
GREY = "#555555"


@dataclass(frozen=True)
class Band:
    """A coloured span of steps; a hatched one is drawn over the plain ones."""

    label: str
    begin: float
    end: float
    colour: str
    hatched: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points; `notes` are the hover texts, one for each point."""

    label: str
    points: Sequence[Point]
    colour: str
    width: float = 1.5
    dotted: bool = False
    dots: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Marks:
    """Marks of one kind: up, down, right, square or ring."""

    label: str
    points: Sequence[Point]
    colour: str
    symbol: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Area:
    """A layer stacked on the areas before it in its panel; `step`: a value lasts until the next."""

    label: str
    points: Sequence[Point]
    colour: str
    step: bool = False


@dataclass(frozen=True)
class VerticalLine:
    """A thin vertical line, with a text at its upper end."""

    step: float
    colour: str
    text: str = ""


@dataclass(frozen=True)
class Text:
    """A text centred on a point."""

    step: float
    height: float
    text: str


Item = Band | Line | Marks | Area | VerticalLine | Text


@dataclass(frozen=True)
class Panel:
    """One of the stacked plots; `low` and `high` limit its y axis, None: by its values."""

    items: Sequence[Item]
    label: str = ""
    height: float = 4.0
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    title: str = ""

    @property
    def grid(self) -> str:
        """The colour of the grid lines: white on bands, else grey."""
        return "#ffffff" if any(isinstance(item, Band) for item in self.items) else "#e6e6e6"


@dataclass(frozen=True)
class Chart:
    """Panels on one axis of steps that ends at `last`."""

    panels: Sequence[Panel]
    last: float
    size: tuple[int, int] = SIZE
    label: str = "optimiser step"


def colour_of(index: int) -> str:
    """Return the colour of the difficulty at a position in their order."""
    return COLOURS[index % len(COLOURS)]


def legend_order(chart: Chart) -> list[str]:
    """Return every label once: stages first, areas from the top down, then the rest in order."""
    items = [item for panel in chart.panels for item in panel.items]
    stages = [item.label for item in items if isinstance(item, Band) and not item.hatched]
    areas = [item.label for item in reversed(items) if isinstance(item, Area)]
    rest = [item.label for item in items if not isinstance(item, VerticalLine | Text)]
    return list(dict.fromkeys([*stages, *areas, *rest]))
