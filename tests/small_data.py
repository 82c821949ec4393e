"""A small data folder, made in a second."""

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
