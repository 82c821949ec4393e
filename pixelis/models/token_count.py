"""What `data-prep` asks a model's processor: an example's tokens, and whether it takes an image.

It is a module of its own because `data-prep` starts without torch: torch and transformers are
imported at the first question.
"""

from functools import lru_cache
from typing import Any

from PIL import Image

from pixelis.data.example import Example


def count_tokens(model_name: str, example: Example) -> int:
    """Return the number of tokens of an example's complete conversation, visual ones included.

    Raises:
        CheckpointError: at the first count, when the model has no processor.
        DataError: when the example cannot be encoded at all.
    """
    from pixelis.data.encode import encode_example

    return len(encode_example(example, _load_encoder(model_name)))


@lru_cache(maxsize=10_000)
def explain_refusal(model_name: str, size: tuple[int, int]) -> str:
    """Return why the processor refuses images of a size (width, height); empty if it takes them.

    Raises:
        CheckpointError: at the first call, when the model has no processor.
    """
    from pixelis.data.encode import RefusedImageError

    try:
        _load_encoder(model_name).num_image_tokens(Image.new("1", size))
    except RefusedImageError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _load_encoder(model_name: str) -> Any:
    from pixelis.data.encode import Encoder
    from pixelis.models.load import load_processor

    return Encoder(load_processor(model_name))
