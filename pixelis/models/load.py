"""Load a base model and its processor: the embedded one, a hub name, or a folder."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from pixelis.errors import CheckpointError, ConfigError, in_one_line
from pixelis.files import expanded
from pixelis.models.processor_check import check_processor
from pixelis.models.quantized import check_quantization, quantization_config
from pixelis.models.untrusted import check_model_folder, tell_of_pickles

EMBEDDED = "pixelis-nano"
EMBEDDED_DIR = Path(__file__).parent / "nano"
# Files that are missing, broken, of another architecture, or with values that are none.
UNLOADABLE = (
    *(OSError, ValueError, LookupError, RuntimeError, SafetensorError),
    *(TypeError, AttributeError, ArithmeticError, StrictDataclassError),
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_model(model_name: str) -> str:
    """The folder of the embedded base for its name; any other name as it is.

    Raises:
        CheckpointError: when a folder is named that is not there, or the embedded base is missing.
        UserError: when it begins with the home of somebody who is not known here.
    """
    if model_name != EMBEDDED:
        is_path = model_name.startswith(("/", ".", "~")) or model_name.count("/") > 1
        place = str(expanded(model_name)) if is_path else model_name
        if is_path and not Path(place).is_dir():
            raise CheckpointError(
                f"no model folder {model_name}; model.model_name is {EMBEDDED}, a hub name "
                "or a folder"
            )
        return place
    if not (EMBEDDED_DIR / "model.safetensors").is_file():
        raise CheckpointError(f"the embedded base is missing in {EMBEDDED_DIR}; run `make base`")
    return str(EMBEDDED_DIR)


def check_weights(model_name: str) -> None:
    """Refuse a local folder without whole safetensors, by their headers alone.

    Raises:
        CheckpointError: when there are none, or one is cut off or damaged.
    """
    folder = Path(resolve_model(model_name))
    if not folder.is_dir():
        return  # a hub name
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        told = tell_of_pickles(folder)
        raise CheckpointError(f"no model for {model_name!r}: {folder} holds no *.safetensors{told}")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except UNLOADABLE as error:
            raise CheckpointError(
                f"no model for {model_name!r}: {file.name} is damaged ({in_one_line(error)})"
            ) from error


def load_processor(
    model_name: str,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The processor of a model, with its image area bounded.

    Raises:
        CheckpointError: when it cannot be loaded, has no chat template or does not encode.
    """
    place = resolve_model(model_name)
    if Path(place).is_dir():
        check_model_folder(Path(place), trust_remote_code=trust_remote_code)
    try:
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=trust_remote_code)
    # Of any kind: the tokenizers library raises plain ones, and some kinds ask for a package.
    except Exception as error:
        raise CheckpointError(f"no processor for {model_name!r}: {in_one_line(error)}") from error
    if not getattr(processor, "chat_template", None):
        raise CheckpointError(f"the processor of {model_name!r} has no chat template")
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise CheckpointError(f"the processor of {model_name!r} has no {part}")
    try:
        check_processor(processor)
    except Exception as error:  # a template raises whatever it likes
        raise CheckpointError(
            f"the processor of {model_name!r} does not encode an image and a turn: "
            f"{type(error).__name__}: {in_one_line(error)}"
        ) from error
    image_processor = processor.image_processor
    size = dict(image_processor.size)
    size["shortest_edge"] = min_pixels or size["shortest_edge"]
    size["longest_edge"] = max_pixels or size["longest_edge"]
    if size["shortest_edge"] > size["longest_edge"]:
        raise ConfigError(
            f"model.min_pixels must be <= the processor's largest area, got {size['shortest_edge']}"
            f" > {size['longest_edge']}"
        )
    image_processor.size = type(image_processor.size)(**size)
    return processor


def max_positions(model_name: str, *, trust_remote_code: bool = False) -> int | None:
    """How many tokens a model was made for (`max_position_embeddings`); None where it tells none.

    Raises:
        CheckpointError: when its configuration cannot be loaded.
    """
    place = resolve_model(model_name)
    if Path(place).is_dir():
        check_model_folder(Path(place), trust_remote_code=trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
        found = getattr(config.get_text_config(), "max_position_embeddings", None)
    except UNLOADABLE as error:
        raise CheckpointError(f"no model for {model_name!r}: {in_one_line(error)}") from error
    return found if type(found) is int and found > 0 else None


def load_model(
    model_name: str,
    *,
    torch_dtype: str = "auto",
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    attn_implementation: str = "auto",
) -> torch.nn.Module:
    """A vision-language model from safetensors, on the CPU, in evaluation mode; 4 bits: on the GPU.

    Raises:
        CheckpointError: when it cannot be loaded.
        ConfigError: when it is to be in 4 bits where that cannot be (`check_quantization`).
    """
    dtype: Any = DTYPES.get(torch_dtype, "auto")
    words: dict[str, Any] = {}
    if attn_implementation != "auto":
        words["attn_implementation"] = attn_implementation
    if load_in_4bit:
        check_quantization()
        words["quantization_config"] = quantization_config(DTYPES.get(torch_dtype, torch.bfloat16))
    place = resolve_model(model_name)
    if Path(place).is_dir():
        check_weights(model_name)
        check_model_folder(Path(place), trust_remote_code=trust_remote_code)
    try:
        opened: Any = AutoModelForImageTextToText.from_pretrained(
            place,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **words,
        )
    except (*UNLOADABLE, ImportError) as error:
        raise CheckpointError(f"no model for {model_name!r}: {in_one_line(error)}") from error
    model, found = opened
    if missing := sorted(found["missing_keys"]):  # transformers would draw them by lot
        raise CheckpointError(
            f"no model for {model_name!r}: its weights lack {len(missing)} tensors, such as "
            f"{missing[0]}"
        )
    loaded: torch.nn.Module = model.eval()
    return loaded
