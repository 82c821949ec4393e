"""Count the tokens of an example with a model's processor, for `max_length` of an import.

It is a module of its own because `data-prep` starts without torch: torch and transformers are
imported at the first count.
"""

from functools import lru_cache
from typing import Any

from pixelis.data.example import Example


def count_tokens(model_name: str, example: Example) -> int:
    """Return the number of tokens of an example's complete conversation, visual ones included.

    Raises:
        CheckpointError: at the first count, when the model has no processor.
        DataError: when the example cannot be encoded at all.
    """
    from pixelis.data.encode import encode_example

    return len(encode_example(example, _load_encoder(model_name)))


@lru_cache(maxsize=1)
def _load_encoder(model_name: str) -> Any:
    from pixelis.data.encode import Encoder
    from pixelis.models.load import load_processor

    return Encoder(load_processor(model_name))
