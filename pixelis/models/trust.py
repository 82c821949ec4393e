"""Check foreign models, adapters and processors before a library acts on their files.

For model and adapter folders only the JSON files and the headers of safetensors are read: nothing
is imported, unpickled or allocated. A processor is tried once, with a time limit.
"""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image
from safetensors import SafetensorError, safe_open

from pixelis.config import INITS
from pixelis.data.chat import Message
from pixelis.data.encode import Encoder
from pixelis.errors import CheckpointError
from pixelis.models.families import lora_target_pattern

# Opening a file of these kinds can run code.
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# The keys of adapter_config.json that may be set; every other one must be empty. Some of the others
# import a module by name or repeat layers without limit.
ADAPTER_KEYS = {
    *("peft_type", "task_type", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern"),
    *("alpha_pattern", "use_dora", "use_rslora", "bias", "lora_bias", "fan_in_fan_out"),
    *("init_lora_weights", "eva_config", "layers_to_transform", "qalora_group_size"),
    "megatron_core",  # always written by PEFT, and used only with megatron_config
}
# Other initialisations decompose every layer any number of times, or need data. These cannot be
# switched off while loading: an untrained pissa adapter belongs to the base that pissa changed.
ALLOWED_INITS = INITS[1:]
MAX_ALPHA = 10**6
MAX_RANK_TO_WIDTH = 64  # largest rank as a multiple of the width of its layer
OUR_TARGETS = [
    lora_target_pattern(train_vision=vision, train_merger=merger)
    for vision in (True, False)
    for merger in (True, False)
]
# Names joined by "|", without repetition, so that matching takes no time.
PLAIN_NAMES = re.compile(r"[\w.\\|^$-]+")
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "depth", "n_layer", "num_blocks")

TRIAL_SECONDS = 20.0  # the work takes milliseconds; the limit is for a busy machine
MAX_PIXELS = 2**26  # of the enlarged trial image: four times Qwen's maximum
MAX_SIDE = 1024  # sides of a patch (pixels) and a merge (patches), and frames of a temporal patch


def check_model_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse a model folder that wants to run its own code, or claims more layers than tensors.

    Args:
        folder: the folder of a base model or of a processor.
        trust_remote_code: whether the user permits the folder's own code.

    Raises:
        CheckpointError: with the file and the reason.
    """
    configs = {path.name: _read_json(path) for path in sorted(folder.glob("*.json"))}
    for name, config in configs.items():
        code = next((value for key, value in _walk(config) if key == "auto_map" and value), None)
        if code is not None and not trust_remote_code:
            raise CheckpointError(
                f"{folder / name} asks for code of its own (auto_map: {code!r:.100}); it is run "
                "only where model.trust_remote_code is true"
            )
        if name.endswith(".safetensors.index.json"):
            _check_index(folder / name, config)
    _check_layer_counts(folder, configs.get("config.json"))


def describe_pickled_files(folder: Path) -> str:
    """Return the end of an error message that names the pickled files of a folder, if any."""
    names = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if not names:
        return ""
    return (
        f"; {', '.join(names[:3])} can run code when opened and is not read: save the weights as "
        "safetensors"
    )


def check_adapter_config(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse an adapter that is not plain LoRA, or whose rank is larger than its weights.

    Args:
        config: the content of adapter_config.json.
        folder: the folder of adapter_model.safetensors.

    Raises:
        CheckpointError: with the key, the rule and the value.
        SafetensorError, OSError: when the weights cannot be read.
    """

    def check(is_right: Any, rule: str, value: Any) -> None:
        if not is_right:
            raise CheckpointError(f"the adapter in {folder}: {rule}, got {value!r:.100}")

    ranks, alphas = [config.get("r", 8)], [config.get("lora_alpha", 8)]
    for key, values in (("rank_pattern", ranks), ("alpha_pattern", alphas)):
        pattern = config.get(key) or {}
        is_plain = isinstance(pattern, dict) and all(map(PLAIN_NAMES.fullmatch, pattern))
        check(is_plain, f"{key} must name layers, without a pattern", pattern)
        values += pattern.values()
    kind = config.get("peft_type", "LORA")
    check(kind == "LORA", "peft_type must be LORA", kind)
    for key, value in config.items():
        is_empty = value in (None, False, [], {}, "")
        rule = f"{key:.60} must not be set in an adapter that is let in"
        check(key in ADAPTER_KEYS or is_empty, rule, value)
    init = config.get("init_lora_weights")
    allowed = ", ".join(("true", "false", "null", *ALLOWED_INITS))
    is_allowed = init is None or type(init) is bool or init in ALLOWED_INITS
    check(is_allowed, f"init_lora_weights must be one of {allowed}", init)
    for alpha in alphas:
        # Compared and never converted: an integer may be too large for a float.
        is_right = type(alpha) in (int, float) and -MAX_ALPHA <= alpha <= MAX_ALPHA
        check(is_right, f"lora_alpha must be a number of at most {MAX_ALPHA}", alpha)
    targets = config.get("target_modules")
    if targets is not None and targets not in OUR_TARGETS:
        names = targets if isinstance(targets, list) else [targets]
        are_plain = all(isinstance(name, str) and PLAIN_NAMES.fullmatch(name) for name in names)
        check(are_plain, "target_modules must name layers, without a pattern", targets)
    for rank in ranks:
        check(type(rank) is int and rank >= 1, "r must be an integer >= 1", rank)
    largest = _largest_rank(folder / "adapter_model.safetensors")
    rule = f"r must be at most the rank of the weights, {largest}"
    check(max(ranks) <= largest, rule, max(ranks))


def check_processor(processor: Any) -> None:
    """Check a processor's sizes, then encode one turn with an image of 56 x 56 pixels.

    A chat template is a program in a sandbox, which prevents access to files but not endless loops:
    in the main thread the trial has a time limit. Effects of other messages are not tested.

    Raises:
        Exception: of any kind, from the template or from a library given impossible values.
    """
    _check_sizes(processor.image_processor)
    template = processor.chat_template
    for text in template.values() if isinstance(template, dict) else (template,):
        # A power of large numbers is one operation of Python, which no signal can interrupt.
        if any(token == "**" for _, _, token in Environment().lex(str(text))):
            raise ValueError("its chat template takes a power (**), which may have no end")
    image = Image.new("RGB", (56, 56))
    question = Message("user", (image, "What is there?"))
    answer = Message("assistant", ("Nothing.",), supervised=True)
    with _time_limit(TRIAL_SECONDS):
        encoder = Encoder(processor)
        num_pixels = _num_pixels(encoder.image_processor, image)
        if num_pixels > MAX_PIXELS:
            raise ValueError(
                f"it enlarges an image of 56 x 56 to {num_pixels} pixels, at most {MAX_PIXELS} "
                "are taken"
            )
        encoder.encode([question], add_generation_prompt=True)
        encoder.encode([question, answer])
        encoder.process_images([image])


def _largest_rank(file: Path) -> int:
    """Return the largest rank among an adapter's weights; 0 when it has none.

    An empty or narrow tensor takes little space in the file, however large its first dimension is:
    shapes that no layer has are ignored.
    """
    with safe_open(file, framework="pt") as opened:
        names = [n for n in opened.keys() if n.startswith("base_model.") and ".lora_A." in n]
        shapes = [opened.get_slice(name).get_shape() for name in names]
    ranks = [int(s[0]) for s in shapes if len(s) == 2 and 0 < s[0] <= MAX_RANK_TO_WIDTH * s[1]]
    return max(ranks, default=0)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # the library that needs the file reports it


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a JSON document, without recursion."""
    queue = [value]
    while queue:
        outer = queue.pop()
        if isinstance(outer, dict):
            yield from outer.items()
            queue += outer.values()
        elif isinstance(outer, list):
            queue += outer


def _check_index(path: Path, index: Any) -> None:
    names = index.get("weight_map") if isinstance(index, dict) else None
    for name in names.values() if isinstance(names, dict) else ():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{path}: weight_map must name files of the folder, got {name!r:.100}"
            )


def _check_layer_counts(folder: Path, config: Any) -> None:
    """Refuse more layers than tensors: the library would build them all before it reads weights."""
    files = list(folder.glob("*.safetensors"))
    num_tensors = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                num_tensors += len(opened.keys())
        except (SafetensorError, OSError):
            return  # reported when the weights are loaded
    for name, value in _walk(config) if files else ():
        if name in LAYER_COUNTS and type(value) is int and value > num_tensors:
            raise CheckpointError(
                f"{folder / 'config.json'}: {name} must be at most the number of tensors, "
                f"{num_tensors}, got {value}"
            )


def _check_sizes(image_processor: Any) -> None:
    size = dict(image_processor.size)
    for name in ("shortest_edge", "longest_edge"):
        if type(size.get(name)) is not int or size[name] < 1:
            raise ValueError(f"size.{name} must be an integer >= 1, got {size.get(name)!r:.100}")
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        value = getattr(image_processor, name, None)
        if type(value) is not int or not 1 <= value <= MAX_SIDE:
            raise ValueError(f"{name} must be an integer from 1 to {MAX_SIDE}, got {value!r:.100}")


def _num_pixels(image_processor: Any, image: Image.Image) -> int:
    """Return how many pixels of an image the vision tower would receive."""
    patches = image_processor.get_number_of_image_patches(image.height, image.width, {})
    side, frames = int(image_processor.patch_size), int(image_processor.temporal_patch_size)
    return int(patches) * side**2 * frames


class _TimeIsUp(BaseException):
    """Raised by the alarm; no `except Exception` of the code on trial catches it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the block after a time; only in the main thread, where Python runs signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise _TimeIsUp

    handler = signal.signal(signal.SIGALRM, interrupt)
    previous, began = signal.setitimer(signal.ITIMER_REAL, seconds), time.monotonic()
    try:
        yield
    except _TimeIsUp:
        raise TimeoutError(f"it took more than {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if previous[0] > 0:  # start the caller's own alarm again with the time that it has left
            left = max(previous[0] - (time.monotonic() - began), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, previous[1])
