"""Load a base model and its processor: the embedded one, a hub name, or a folder."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
)
from transformers.utils import logging as transformers_logging

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.errors import CheckpointError, ConfigError, UserError, in_one_line
from pixelis.files import expand_home
from pixelis.models.families import PUBLISHED, published_config
from pixelis.models.trust import check_model_folder, check_processor, describe_pickled_files

EMBEDDED = "pixelis-nano"
EMBEDDED_DIR = Path(__file__).parent / "nano"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# In 4 bits only the language model is quantised: the vision tower is small and sensitive to
# rounding. The embeddings and the output head keep their dtype.
NOT_QUANTISED = ("model.visual", "lm_head")


def best_device() -> torch.device:
    """Return the GPU of this process on its machine (by LOCAL_RANK), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def on_best_device(module: nn.Module) -> Iterator[torch.device]:
    """Move a module to the best device inside the block, and back afterwards; yield the device."""
    before, device = next(module.parameters()).device, best_device()
    if before.type == device.type:
        yield before
        return
    module.to(device)
    try:
        yield device
    finally:
        module.to(before)


def check_for_gpu(key: str, value: str, package: str) -> None:
    """Refuse a value that needs a GPU and a package where one of them is missing.

    Raises:
        ConfigError: naming the key and what is missing.
    """
    if not torch.cuda.is_available():
        raise ConfigError(f"{key} must not be {value} without a GPU that CUDA sees")
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{key} {value} needs the package {package.replace('_', '-')}")


def silence_libraries() -> None:
    """Hide the progress bar of transformers, and warnings that no user can act on.

    One lists an adapter's missing tensors in thousands of characters; `pixelis.models.lora` refuses
    such an adapter in one line. Another repeats, in several lines, what a resume says in one.
    """
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*activation_checkpointing.*")
    warnings.filterwarnings("ignore", message="Found missing adapter keys.*")


def resolve_model(model_name: str) -> str:
    """Return the folder of the embedded base for its name, and any other name as it is.

    Raises:
        CheckpointError: when a named folder does not exist, or the embedded base is missing.
        UserError: when the name begins with the home folder of an unknown user.
    """
    if model_name != EMBEDDED:
        if not (model_name.startswith(("/", ".", "~")) or model_name.count("/") > 1):
            return model_name
        folder = expand_home(model_name)
        if not folder.is_dir():
            raise CheckpointError(
                f"no model folder {model_name}; model.model_name is {EMBEDDED}, a hub name "
                "or a folder"
            )
        return str(folder)
    if not (EMBEDDED_DIR / "model.safetensors").is_file():
        raise CheckpointError(f"the embedded base is missing in {EMBEDDED_DIR}; run `make base`")
    return str(EMBEDDED_DIR)


@contextmanager
def convert_load_errors(message: str) -> Iterator[None]:
    """Convert every error of the libraries while loading into CheckpointError.

    Files may be missing, damaged, of an unknown architecture, or with impossible values.

    Args:
        message: the failure, such as `no model for 'name'`; the library's text is added.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise CheckpointError(f"{message}: {in_one_line(error)}") from error


def check_weights(model_name: str) -> None:
    """Refuse a local folder without complete safetensors files; only their headers are read.

    Raises:
        CheckpointError: when there is no such file, or one is truncated or damaged.
    """
    folder = Path(resolve_model(model_name))
    if not folder.is_dir():
        return  # a hub name
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"no model for {model_name!r}: {folder} holds no *.safetensors"
            f"{describe_pickled_files(folder)}"
        )
    for file in files:
        message = f"no model for {model_name!r}: {file.name} is damaged"
        with convert_load_errors(message), safe_open(file, framework="pt"):
            pass


def load_processor(
    model_name: str,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Load the processor of a model and set the smallest and largest area of an image, in pixels.

    Raises:
        CheckpointError: when it cannot be loaded, lacks a part or a token, or does not encode.
        ConfigError: when min_pixels is larger than the largest area.
    """
    path = _resolve_and_check(model_name, trust_remote_code=trust_remote_code)
    with convert_load_errors(f"no processor for {model_name!r}"):
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    for part in ("tokenizer", "image_processor", "chat_template"):
        if not getattr(processor, part, None):
            raise CheckpointError(f"the processor of {model_name!r} has no {part}")
    tokenizer = processor.tokenizer
    if tokenizer.eos_token is None:
        raise CheckpointError(
            f"the tokenizer of {model_name!r} has no eos_token, which ends the assistant's turns"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding has labels of its own
    try:
        check_processor(processor)
    except Exception as error:  # a chat template can raise anything
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


def load_encoder(model: ModelConfig, max_length: int | None = None) -> Encoder:
    """Load the processor of section `model` (`load_processor`) as an encoder.

    Examples of more than `max_length` tokens are too long for it; None: there is no limit.
    """
    processor = load_processor(
        model.model_name,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        trust_remote_code=model.trust_remote_code,
    )
    return Encoder(processor, max_length=max_length)


def load_model_config(model_name: str, *, trust_remote_code: bool = False) -> Any:
    """Load the configuration of a base from its folder or the hub.

    Raises:
        CheckpointError: when it cannot be loaded.
    """
    path = _resolve_and_check(model_name, trust_remote_code=trust_remote_code)
    with convert_load_errors(f"no model for {model_name!r}"):
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)


def load_model_config_offline(model_name: str) -> Any:
    """Load the configuration of a base from its folder, the hub's local cache, or built-in sizes.

    Raises:
        CheckpointError: when all of them fail; the network is never used.
    """
    path = resolve_model(model_name)
    hub_names = {f"{name}-Instruct": name for name in PUBLISHED}
    published = hub_names.get(model_name.rpartition("/")[2])
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:
        if published is not None and not Path(path).is_dir():
            return published_config(published)
        raise CheckpointError(
            f"no configuration for {model_name!r} on this machine ({in_one_line(error)}); name a "
            f"folder with its config.json, or one of {', '.join(f'Qwen/{n}' for n in hub_names)}"
        ) from error


def max_positions(model_name: str, *, trust_remote_code: bool = False) -> int | None:
    """Return the context length of a model in tokens; None when its configuration has none.

    Raises:
        CheckpointError: when its configuration cannot be loaded.
    """
    config = load_model_config(model_name, trust_remote_code=trust_remote_code)
    with convert_load_errors(f"no model for {model_name!r}"):
        length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if type(length) is int and length > 0 else None


def load_model(
    model_name: str,
    *,
    torch_dtype: str = "auto",
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    attn_implementation: str = "auto",
) -> torch.nn.Module:
    """Load a vision-language model from safetensors in evaluation mode.

    The model is on the CPU, or with `load_in_4bit` on the GPU.

    Raises:
        CheckpointError: when it cannot be loaded.
    """
    kwargs: dict[str, Any] = {"dtype": DTYPES.get(torch_dtype, "auto")}
    if attn_implementation != "auto":
        kwargs["attn_implementation"] = attn_implementation
    if load_in_4bit:
        # NF4 with quantised scales (QLoRA, Dettmers et al. 2023, section 3).
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES.get(torch_dtype, torch.bfloat16),
            llm_int8_skip_modules=list(NOT_QUANTISED),  # despite its name, for 4 bits too
        )
    check_weights(model_name)
    path = _resolve_and_check(model_name, trust_remote_code=trust_remote_code)
    with convert_load_errors(f"no model for {model_name!r}"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **kwargs,
        )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers would fill them with random values
        raise CheckpointError(
            f"no model for {model_name!r}: its weights lack {len(missing)} tensors, such as "
            f"{missing[0]}"
        )
    evaluated: torch.nn.Module = model.eval()
    return evaluated


def _resolve_and_check(model_name: str, *, trust_remote_code: bool) -> str:
    path = resolve_model(model_name)
    if Path(path).is_dir():
        check_model_folder(Path(path), trust_remote_code=trust_remote_code)
    return path
