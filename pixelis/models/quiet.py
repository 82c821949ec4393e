"""What the libraries below say while models are loaded, and no user can mend."""

import warnings

from transformers.utils import logging


def quiet_libraries() -> None:
    """Leave out transformers' bar for weights and peft's reading of a name that is going away.

    And its list of an adapter's missing tensors, in thousands of characters: `pixelis.models.lora`
    refuses such an adapter in a line.
    """
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*activation_checkpointing.*")
    warnings.filterwarnings("ignore", message="Found missing adapter keys.*")
