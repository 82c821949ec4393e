"""What a figure shows, apart from how: the PNG and the interactive page are drawn from the same.

A chart is panels above each other on one axis of optimiser steps; a panel holds items. An item's
label is its entry in the legend, which has every label once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

SIZE = (1000, 560)  # pixels
# Okabe and Ito's colours, told apart by every kind of colour vision; the order is easy to hard.
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
BANDS = ("#eef3f8", "#dbe6f0", "#c8d8e6", "#b4cadc", "#a1bcd2")
DARK = "#111111"
GREY = "#555555"


@dataclass(frozen=True)
class Band:
    """A span of steps in a colour; hatched, it lies over the band of its colour."""

    label: str
    begin: float
    end: float
    colour: str
    hatched: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points; `notes` are shown for the points where the mouse is."""

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
    """A layer on top of the areas before it in its panel; held, a value holds until the next."""

    label: str
    points: Sequence[Point]
    colour: str
    held: bool = False


@dataclass(frozen=True)
class Rule:
    """A thin vertical line, with words at its upper end."""

    step: float
    colour: str
    words: str = ""


@dataclass(frozen=True)
class Words:
    """Words in the middle of a point."""

    step: float
    height: float
    words: str


Item = Band | Line | Marks | Area | Rule | Words


@dataclass(frozen=True)
class Panel:
    """One of the charts above each other; `low` and `high` bound its y axis, None: as needed."""

    items: Sequence[Item]
    label: str = ""
    height: float = 4.0
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    title: str = ""

    @property
    def grid(self) -> str:
        """The colour of lines across: white on bands, else grey."""
        return "#ffffff" if any(isinstance(item, Band) for item in self.items) else "#e6e6e6"


@dataclass(frozen=True)
class Chart:
    """Panels on one axis of steps that ends at `last`."""

    panels: Sequence[Panel]
    last: float
    size: tuple[int, int] = SIZE
    label: str = "optimiser step"


def colour_of(index: int) -> str:
    """The colour of the difficulty at a place of their order."""
    return COLOURS[index % len(COLOURS)]


def legend_order(chart: Chart) -> list[str]:
    """Every label once: stages first, layers from the upper one down, the rest as they come."""
    items = [item for panel in chart.panels for item in panel.items]
    stages = [item.label for item in items if isinstance(item, Band) and not item.hatched]
    layers = [item.label for item in reversed(items) if isinstance(item, Area)]
    rest = [item.label for item in items if not isinstance(item, Rule | Words)]
    return list(dict.fromkeys([*stages, *layers, *rest]))
