"""Figures of a curriculum, drawn from its events and measurements.

`timeline`, `samples_drawn`, `loss_by_difficulty` and `compare_timelines` say what is shown, as a
`Chart`; `as_figure` makes a matplotlib figure of it, `as_page` an interactive HTML page.
"""

from pixelis.figures.accuracy_bars import accuracy
from pixelis.figures.chart import COLOURS, Chart
from pixelis.figures.course import Course, Rules, build_course
from pixelis.figures.drawn_samples import samples_drawn
from pixelis.figures.interactive import as_page
from pixelis.figures.layer_ranks import layer_ranks, layer_spectra
from pixelis.figures.side_by_side import compare_timelines
from pixelis.figures.stage_timeline import timeline
from pixelis.figures.stage_visits import Visit, visits
from pixelis.figures.still import as_figure
from pixelis.figures.stratum_loss import loss_by_difficulty

__all__ = [
    "COLOURS",
    "Chart",
    "Course",
    "Rules",
    "Visit",
    "accuracy",
    "as_figure",
    "as_page",
    "build_course",
    "compare_timelines",
    "layer_ranks",
    "layer_spectra",
    "loss_by_difficulty",
    "samples_drawn",
    "timeline",
    "visits",
]
