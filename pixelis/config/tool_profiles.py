"""Ready values of `import.tools` for the tool calls of public data."""

from typing import Any

# ZOOM_IN enlarges twice where a call names no factor; these tools only crop.
_CROP = {"operation": "ZOOM_IN", "fixed": {"factor": 1}}

# Profile -> tool -> what it is here.
PROFILES: dict[str, dict[str, Any]] = {
    # Images are counted from 1, the question's image.
    "pixel_reasoner": {
        name: {
            **_CROP,
            "arguments": {"bbox_2d": "bbox", "target_image": 1},
            "unit": "fractions",
        }
        for name in ("crop_image_normalized", "crop_image", "zoom_in")
    },
    "deepeyes": {
        "image_zoom_in_tool": {
            **_CROP,
            "arguments": {"bbox_2d": "bbox", "label": None, "image_path": None},
            "unit": "pixels",
        }
    },
    # The cookbook of Qwen3-VL; images are counted from 0, the question's image.
    "qwen": {
        "image_zoom_in_tool": {
            **_CROP,
            "arguments": {"bbox_2d": "bbox", "label": None, "img_idx": 0},
            "unit": "thousandths",
        }
    },
}
