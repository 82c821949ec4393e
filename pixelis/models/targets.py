"""Which linear layers get an adapter, as patterns over the paths of a Qwen-VL model's modules.

By path, not by suffix: the vision tower of Qwen2.5-VL has `gate_proj`, `up_proj` and `down_proj`
as well, and a suffix would adapt it unasked.
"""

LANGUAGE = r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
VISION = r"visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.((gate|up|down)_proj|linear_fc[12]))"
# Qwen3-VL feeds three inner layers of its tower to the language model, each by a merger of its own.
MERGER = r"visual\.(merger|deepstack_merger_list\.\d+)\.(mlp\.[02]|linear_fc[12])"


def target_pattern(*, train_vision: bool = False, train_merger: bool = False) -> str:
    """The regular expression that a module's whole path matches where it gets an adapter."""
    wanted = {LANGUAGE: True, VISION: train_vision, MERGER: train_merger}
    return rf".*({'|'.join(pattern for pattern, asked in wanted.items() if asked)})"


def is_vision(path: str) -> bool:
    """Whether a module is before the language model: in the vision tower or a merger."""
    return ".visual." in f".{path}."
