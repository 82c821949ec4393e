"""The sources of annotated images by name. To add one, add a file here and its lines below."""

import random
from pathlib import Path
from typing import Protocol

from pixelis.data_prep.annotated_image import AnnotatedImage
from pixelis.data_prep.sources.drawn import DrawnScenes
from pixelis.errors import ConfigError

__all__ = ["SOURCES", "Source", "open_source"]


class Source(Protocol):
    """A supply of annotated images."""

    name: str
    tasks: tuple[str, ...]
    """The tasks that its images suit."""

    def picture(self, rng: random.Random, task: str) -> AnnotatedImage:
        """Draw an image that may suit the task; it depends on the generator's state alone."""


SOURCES = ("scenes", "coco")


def open_source(name: str, *, path: Path | None = None, image_folder: Path | None = None) -> Source:
    """Open a source by its name and check its files.

    Args:
        name: one of `SOURCES`.
        path: for `coco`, the instances JSON or its folder.
        image_folder: for `coco`, the folder of the images, if it is not next to the JSON.

    Raises:
        DataError: when the source's files cannot be used.
        ConfigError: when `coco` has no path, or the name is unknown.
    """
    if name == DrawnScenes.name:
        return DrawnScenes()
    if name != "coco":
        raise ConfigError(f"source must be one of {', '.join(SOURCES)}, got {name!r}")
    if path is None:
        raise ConfigError("source coco needs input: the folder of its images and instances JSON")
    from pixelis.data_prep.sources.coco import CocoInstances

    return CocoInstances(path, image_folder)
