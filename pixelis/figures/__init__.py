"""Figures of a curriculum, from its events and measurements, and of an evaluation.

`timeline`, `compare_timelines`, `samples_drawn` and `loss_by_difficulty` describe a figure as a
`Chart`; `as_figure` draws it with matplotlib, `as_page` as an interactive HTML page.
`accuracy_bars` and `outcome_bars` return `Bars` (`bars_figure`, `bars_page`), `confusions` returns
confusion matrices.
"""

from pixelis.figures.bars import accuracy_bars, bars_figure, bars_page, outcome_bars
from pixelis.figures.by_difficulty import loss_by_difficulty, samples_drawn
from pixelis.figures.chart import COLOURS, Chart
from pixelis.figures.confusion import confusion_figure, confusion_page, confusions
from pixelis.figures.draw_html import as_page
from pixelis.figures.draw_png import as_figure
from pixelis.figures.history import FigureSettings, TrainingHistory, build_history
from pixelis.figures.layer_ranks import layer_ranks, layer_spectra
from pixelis.figures.timeline import compare_timelines, stage_names, timeline

__all__ = [
    "COLOURS",
    "Chart",
    "FigureSettings",
    "TrainingHistory",
    "accuracy_bars",
    "as_figure",
    "as_page",
    "bars_figure",
    "bars_page",
    "build_history",
    "compare_timelines",
    "confusion_figure",
    "confusion_page",
    "confusions",
    "layer_ranks",
    "layer_spectra",
    "loss_by_difficulty",
    "outcome_bars",
    "samples_drawn",
    "stage_names",
    "timeline",
]
