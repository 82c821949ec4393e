"""Compute the features of the frozen vision tower once for each image, and M-RoPE positions."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from pixelis.data.encode import Encoder
from pixelis.data.images import open_header
from pixelis.models.load import resolve_model

# The model whose `forward` takes image features instead of pixels. Not Qwen3-VL: its tower also
# feeds deeper layers (deepstack), and one row per token has no space for that.
FEATURES_MODEL = "qwen2_5_vl"


def vision_digest(model: Any) -> str:
    """Return the SHA-256 of the tower's configuration, attention implementation and weights."""
    tower = model.model.visual.config
    facts = {**tower.to_dict(), "attention": tower._attn_implementation}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, parameter in model.model.visual.state_dict().items():
        digest.update(f"{name} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def compute_features(model: Any, encoder: Encoder, contents: Sequence[bytes]) -> list[torch.Tensor]:
    """Compute the features of stored images: (visual tokens, text hidden size) for each."""
    images = [open_header(content).convert("RGB") for content in contents]
    inputs = encoder.process_images(images)
    device = next(model.model.visual.parameters()).device
    outputs = model.model.get_image_features(
        inputs["pixel_values"].to(device), inputs["image_grid_thw"].to(device), return_dict=True
    )
    return [features.cpu() for features in outputs.pooler_output]


class PositionRule:
    """M-RoPE positions as a base's own class computes them, without its weights."""

    def __init__(self, model_name: str, *, trust_remote_code: bool = False) -> None:
        """Build the model of the configuration on the meta device."""
        path = resolve_model(model_name)
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        self.facts = config.to_dict()
        self.image_token_id = getattr(config, "image_token_id", None)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(
                config, trust_remote_code=trust_remote_code
            )
        self._get_rope_index = getattr(getattr(model, "model", None), "get_rope_index", None)

    @property
    def is_known(self) -> bool:
        """Whether the base has such positions."""
        return self._get_rope_index is not None and self.image_token_id is not None

    def __call__(self, ids: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Compute the positions (3, T) of ids (T,) with images of grids (N, 3)."""
        assert self._get_rope_index is not None
        rows = ids.unsqueeze(0)
        kinds = rows.eq(int(self.image_token_id or 0)).int()
        positions, _ = self._get_rope_index(
            rows, kinds, grids if len(grids) else None, attention_mask=torch.ones_like(rows)
        )
        first: torch.Tensor = positions[:, 0]
        return first
