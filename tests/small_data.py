"""A small data folder, made in a second."""

import io

from PIL import Image

from pixelis.config import DataPrepConfig
from pixelis.data_prep.prepare import prepare_folder


def make_small_data(folder, **changed):
    """Write three files of short examples of two tasks; `changed` are keys of data_prep.yaml."""
    settings = {
        "num_samples": 60,
        "num_workers": 1,
        "tasks": ("attribute_recognition", "text_extraction"),
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "self_correction_ratio": 0.0,
    }
    prepare_folder(DataPrepConfig(**settings | changed), folder)
    return folder


def make_thin(row, *, in_step=False):
    """Give a row an image that no processor of Qwen's takes, in its question or in a step."""
    content = io.BytesIO()
    Image.new("RGB", (900, 4)).save(content, "PNG")
    stored = {"bytes": content.getvalue(), "path": None}
    if in_step:
        row["trajectory"][0]["image"] = stored
    else:
        row["images"] = [stored]
    return row
