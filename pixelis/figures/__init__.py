"""Figures of a curriculum, from its events and measurements, and of an evaluation.

Each function that makes a figure returns a `Chart`; `as_figure` draws it with matplotlib, `as_page`
as an interactive HTML page.
"""

from pixelis.figures.chart import COLOURS, Chart, titled
from pixelis.figures.draw_html import as_page
from pixelis.figures.draw_png import as_figure
from pixelis.figures.evaluation import accuracy_bars, confusions, failure_bars, outcome_bars
from pixelis.figures.fonts import fit_fonts
from pixelis.figures.history import FigureSettings, TrainingHistory, build_history
from pixelis.figures.layer_ranks import layer_ranks, layer_spectra
from pixelis.figures.timeline import (
    compare_timelines,
    loss_by_difficulty,
    samples_drawn,
    stage_names,
    timeline,
)

__all__ = [
    "COLOURS",
    "Chart",
    "FigureSettings",
    "TrainingHistory",
    "accuracy_bars",
    "as_figure",
    "as_page",
    "build_history",
    "compare_timelines",
    "confusions",
    "failure_bars",
    "fit_fonts",
    "layer_ranks",
    "layer_spectra",
    "loss_by_difficulty",
    "outcome_bars",
    "samples_drawn",
    "stage_names",
    "timeline",
    "titled",
]
