"""Progress bars: drawn in a terminal; elsewhere a line of the log every 15 seconds."""

import io
import logging
import sys
import time
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

LOG_SECONDS = 15.0


class ProgressBar(tqdm):  # type: ignore[misc]
    """A progress bar that is shown where the log shows progress (level INFO).

    A line of the log has the bar's numbers, for logs in JSON.
    """

    def __init__(
        self, title: str, total: int | None, unit: str, *, initial: int = 0, is_brief: bool = False
    ) -> None:
        """Show the bar.

        Args:
            title: the text before the numbers.
            total: how many units there are; None where nobody knows.
            unit: what is counted, in the singular.
            initial: how many were done before.
            is_brief: show the bar after 2 seconds only, and remove it at its end.
        """
        self.numbers: dict[str, float] = {}
        self._is_drawn = sys.stderr.isatty()
        self._logged_at = time.monotonic()
        super().__init__(
            desc=title,
            total=total,
            unit=unit,
            initial=initial,
            file=None if self._is_drawn else io.StringIO(),
            ncols=None if self._is_drawn else 0,
            dynamic_ncols=self._is_drawn,
            mininterval=0.2,
            miniters=1,
            smoothing=0.3 if self._is_drawn else 0,  # 0: the average from the beginning on
            delay=2 if is_brief else 0,
            leave=not is_brief,
            disable=not logger.isEnabledFor(logging.INFO),
        )

    def show(self, text: str, **numbers: float) -> None:
        """Show a text behind the bar from its next update on; its numbers go into JSON logs."""
        self.numbers = numbers
        self.set_postfix_str(text, refresh=False)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar, or log a line if the last one is old enough or the bar ends."""
        if self._is_drawn:
            return super().display(msg, pos)
        has_ended = self.disable
        if msg == "" or not (has_ended or time.monotonic() - self._logged_at >= LOG_SECONDS):
            return False
        self._logged_at = time.monotonic()
        numbers = {
            "done": self.n,
            "total": self.total,
            "seconds": self.format_dict["elapsed"],
            **self.numbers,
        }
        logger.info("%s", str(self), extra={"numbers": numbers})
        return True
