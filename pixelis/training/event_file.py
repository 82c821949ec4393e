"""The events of a training beside its checkpoints, up to date after each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelis.recorder import Recorder
from pixelis.training.checkpoint import write_json

EVENTS_FILE = "events.json"


class EventFile:
    """A recorder in front of another that also keeps `<output_dir>/events.json` up to date."""

    def __init__(self, recorder: Recorder, path: Path, events: list[dict[str, Any]]) -> None:
        """Write to `path`; `events` holds those of before."""
        self._recorder, self._path, self._events = recorder, path, events
        self.metrics, self.artifact = recorder.metrics, recorder.artifact
        self.figure = recorder.figure

    def event(self, event: Mapping[str, Any]) -> None:
        """Keep an event, then hand it on."""
        self._events.append(dict(event))
        write_json(self._events, self._path)
        self._recorder.event(event)
