"""Train the embedded base's tokenizer: a byte-level BPE on the project's own text.

Digits and capital letters stay single tokens, as in Qwen's tokenizers, so that coordinates and text
can be copied symbol by symbol. The fixed parts of a call become one token, which keeps trajectories
short.
"""

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pixelis.operations.pixels import PALETTE, SHAPES

VOCABULARY = 1024
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Added as whole tokens but not as special ones, as in Qwen2.5: the model writes them itself.
MARKUP = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<answer>",
    "</answer>",
)
_NAME = f"(?:{'|'.join(PALETTE)}) (?:{'|'.join(SHAPES)})"
_PIECES = "|".join(
    (
        # Objects and places are one token each, so that the model can look them up.
        rf" ?{_NAME}(?![a-z])",
        r" ?row \d column \d",
        r'\{"name": "[A-Z_]+", "arguments": \{"[a-z]+": \[?',
        r'["\]]?[,{] ?"[a-z_]+": ["\[]?',
        r" ?[A-Z_]{4,}\([a-z, ]+\)",
        r"\d",
        # A word or a mark includes a space before a digit, which would be a separate token.
        r" ?[A-Z]?[a-z]+(?: (?=\d|[A-Z\d]{2}\b))?",
        r"[A-Z]",
        r"[^\sA-Za-z0-9]+(?:\n| (?=\d))?",
        r"\s+",
    )
)


def train_tokenizer(texts: Iterator[str], chat_template: str) -> PreTrainedTokenizerFast:
    """Train the BPE and wrap it with the special tokens of Qwen2.5-VL.

    Args:
        texts: plain texts of conversations, without special tokens.
        chat_template: the Jinja template to ship with it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(MARKUP),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(MARKUP))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
