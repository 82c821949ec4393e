"""Whether a processor from elsewhere encodes at all, tried once on a small image and a turn.

A chat template is a program in a sandbox, which keeps it from files but not from looping. In the
main thread the try has a limit of time; what a template does only with other messages is not seen.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import Environment
from PIL import Image

from pixelis.data.chat import Message
from pixelis.data.encode import Encoder

TRY_SECONDS = 20.0  # for some milliseconds of work, on a machine with other work
# Of a small image, enlarged to the least area: four times what Qwen takes at most.
MOST_PIXELS = 2**26
MOST_SIDE = 1024  # of a patch, in pixels; also of patches merged, and of frames in one
_EDGES = ("shortest_edge", "longest_edge")


class _TooLong(BaseException):
    """Beyond what the code under trial would catch."""


def check_processor(processor: Any) -> None:
    """Look at a processor's sizes, then encode an image of 56 x 56 pixels and a turn with it.

    Raises:
        Exception: of any kind: what a template or a library makes of values that are none.
    """
    _check_sizes(processor.image_processor)
    for template in _templates(processor.chat_template):
        # A power of large numbers is one step of the interpreter, which no signal ends.
        if any(token == "**" for _, _, token in Environment().lex(template)):
            raise ValueError("its chat template takes a power (**), which may have no end")
    image = Image.new("RGB", (56, 56))
    question = Message("user", (image, "What is there?"))
    answer = Message("assistant", ("Nothing.",), supervised=True)
    with _limited(TRY_SECONDS):
        encoder = Encoder(processor)
        num_pixels = _num_pixels(encoder.image_processor, image)
        if num_pixels > MOST_PIXELS:
            raise ValueError(
                f"it enlarges an image of 56 x 56 to {num_pixels} pixels, at most {MOST_PIXELS} "
                "are taken"
            )
        encoder.encode([question], add_generation_prompt=True)
        encoder.encode([question, answer])
        encoder.process_images([image])


def _check_sizes(image_processor: Any) -> None:
    size = dict(image_processor.size)
    for name in _EDGES:
        if type(size.get(name)) is not int or size[name] < 1:
            raise ValueError(f"size.{name} must be an integer >= 1, got {size.get(name)!r:.100}")
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        value = getattr(image_processor, name, None)
        if type(value) is not int or not 1 <= value <= MOST_SIDE:
            raise ValueError(f"{name} must be an integer from 1 to {MOST_SIDE}, got {value!r:.100}")


def _num_pixels(image_processor: Any, image: Image.Image) -> int:
    """How many pixels the vision tower would be given of an image."""
    patches = image_processor.get_number_of_image_patches(image.height, image.width, {})
    side, frames = int(image_processor.patch_size), int(image_processor.temporal_patch_size)
    return int(patches) * side**2 * frames


def _templates(given: Any) -> list[str]:
    """The texts of a processor's template, which may have several by name."""
    return [str(text) for text in (given.values() if isinstance(given, dict) else (given,))]


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End the block after a time; in the main thread alone, where Python runs signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: Any) -> None:
        raise _TooLong

    handler = signal.signal(signal.SIGALRM, leave)
    before, began = signal.setitimer(signal.ITIMER_REAL, seconds), time.monotonic()
    try:
        yield
    except _TooLong:
        raise TimeoutError(f"it took more than {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before[0] > 0:  # somebody else's alarm rings when it was to
            left = max(before[0] - (time.monotonic() - began), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, before[1])
