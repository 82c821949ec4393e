"""Count the tokens of an example with a model's processor, for `max_length` of an import.

It is a module of its own because `data-prep` starts without torch: torch and transformers are
imported at the first count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pixelis.data.example import Example


@dataclass(frozen=True)
class TokenCounter:
    """Counts an example's tokens, visual ones included; it can be sent to worker processes.

    Raises:
        CheckpointError: at the first count, when the model has no processor.
        DataError: when an example cannot be encoded at all.
    """

    model_name: str

    def __call__(self, example: Example) -> int:
        """Return the number of tokens of the complete conversation."""
        return _counter(self.model_name)(example)


@lru_cache(maxsize=1)
def _counter(model_name: str) -> Callable[[Example], int]:
    from pixelis.data.encode import Encoder, encode_example
    from pixelis.models.load import load_processor

    encoder = Encoder(load_processor(model_name))
    return lambda example: len(encode_example(example, encoder))
