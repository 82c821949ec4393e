"""Figures of a curriculum, drawn from its events and measurements, and of an evaluation.

`timeline`, `samples_drawn`, `loss_by_difficulty` and `compare_timelines` say what is shown, as a
`Chart`; `as_figure` makes a matplotlib figure of it, `as_page` an interactive HTML page.
`accuracy_bars` and `outcome_bars` make `Bars` (`bars_figure`, `bars_page`); `confusions` grids.
"""

from pixelis.figures.accuracy_bars import accuracy, accuracy_bars
from pixelis.figures.bars import bars_figure, bars_page
from pixelis.figures.chart import COLOURS, Chart
from pixelis.figures.confusion import confusion_figure, confusion_page, confusions
from pixelis.figures.draw_html import as_page
from pixelis.figures.draw_png import as_figure
from pixelis.figures.drawn_samples import samples_drawn
from pixelis.figures.history import FigureSettings, TrainingHistory, build_history
from pixelis.figures.layer_ranks import layer_ranks, layer_spectra
from pixelis.figures.outcome_bars import outcome_bars
from pixelis.figures.side_by_side import compare_timelines
from pixelis.figures.stage_visits import Visit, visits
from pixelis.figures.stratum_loss import loss_by_difficulty
from pixelis.figures.timeline_chart import timeline

__all__ = [
    "COLOURS",
    "Chart",
    "TrainingHistory",
    "FigureSettings",
    "Visit",
    "accuracy",
    "accuracy_bars",
    "as_figure",
    "as_page",
    "bars_figure",
    "bars_page",
    "build_history",
    "compare_timelines",
    "layer_ranks",
    "layer_spectra",
    "confusion_figure",
    "confusion_page",
    "confusions",
    "loss_by_difficulty",
    "outcome_bars",
    "samples_drawn",
    "timeline",
    "visits",
]
