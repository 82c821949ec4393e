"""How many tokens an example has in a model's eyes: what `max_length` of an import is held against.

torch and transformers are imported with the first count, so that data-prep can name this without.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pixelis.data.example import Example


@dataclass(frozen=True)
class TokenCounter:
    """Counts an example's tokens, visual ones included, by the processor of a model.

    Raises:
        CheckpointError: at the first count, when the model has no processor.
        DataError: when an example cannot be encoded at all.
    """

    model_name: str

    def __call__(self, example: Example) -> int:
        """The number of tokens of the whole conversation."""
        return _counter(self.model_name)(example)


@lru_cache(maxsize=1)
def _counter(model_name: str) -> Callable[[Example], int]:
    from pixelis.data.encode import Encoder, encode_example
    from pixelis.models.load import load_processor

    encoder = Encoder(load_processor(model_name))
    return lambda example: len(encode_example(example, encoder))
