"""Where pictures come from: a table of sources by name; a new one is a file here and its line."""

import random
from pathlib import Path
from typing import Protocol

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.errors import ConfigError

__all__ = ["SOURCES", "Source", "open_source"]


class Source(Protocol):
    """What gives pictures with their truth."""

    name: str
    tasks: tuple[str, ...]
    """The tasks that its pictures can be asked about."""

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """A picture that may suit the task: a function of the generator's state."""


SOURCES = ("scenes", "coco")


def open_source(name: str, *, path: Path | None = None, image_folder: Path | None = None) -> Source:
    """The source of a name, its files checked.

    Args:
        name: one of `SOURCES`.
        path: of `coco`: the instances JSON, or the folder that it is in.
        image_folder: of `coco`: where its images are, if not beside the JSON.

    Raises:
        DataError: when the source's files cannot be used.
        ConfigError: when `coco` is to be used without a path.
    """
    if name == DrawnScenes.name:
        return DrawnScenes()
    if name != "coco":
        raise ConfigError(f"source must be one of {', '.join(SOURCES)}, got {name!r}")
    if path is None:
        raise ConfigError("source coco needs input: the folder of its images and instances JSON")
    from pixelis.data_prep.sources.coco import CocoInstances

    return CocoInstances(path, image_folder)
