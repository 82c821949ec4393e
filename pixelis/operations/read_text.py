"""READ_TEXT: the characters in a box, by the first of three readers that finds any.

Drawn texts have an exact reader for their one font (`readers/drawn.py`), handwritten digits a
classifier (`readers/handwritten.py`); photographs and scans are read by RapidOCR where the extra
`ocr` is installed (`readers/photograph.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelis.operations.base import (
    BBOX_SCHEMA,
    NothingFound,
    Observation,
    Operation,
    OperationError,
    check_bbox,
)
from pixelis.operations.pixels import pixel_array
from pixelis.operations.readers.drawn import read_drawn
from pixelis.operations.readers.handwritten import read_digit
from pixelis.operations.readers.photograph import (
    HINT,
    holds_drawing_only,
    installed,
    read_photograph,
)

Reader = Callable[[npt.NDArray[np.int16], tuple[int, int, int, int]], str | None]

# The pixels of the whole image and a box in it -> its text, or None; tried in this order.
READERS: dict[str, Reader] = {
    "drawn": read_drawn,
    "handwritten": read_digit,
    "photograph": read_photograph,
}
# A result becomes a part of the conversation.
MAX_CHARACTERS = 400


def _run(images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
    image = images[0]
    box = check_bbox(arguments["bbox"], image.size)
    pixels = pixel_array(image)
    for reader in READERS.values():
        text = reader(pixels, box)
        if text is None:
            continue
        if len(text) > MAX_CHARACTERS:
            raise OperationError(
                f"bbox must hold at most {MAX_CHARACTERS} characters, got {len(text)}"
            )
        return Observation({"text": text})
    message = f"no text in {list(box)}"
    if not holds_drawing_only(pixels, box) and not installed():
        message = f"{message}; {HINT}"
    raise NothingFound(message)


READ_TEXT = Operation(
    name="READ_TEXT",
    description="Read the text in a box.",
    parameters={"bbox": BBOX_SCHEMA},
    run=_run,
    sophistication=1,
)
