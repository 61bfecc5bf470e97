"""Keeping libraries from writing over the progress display."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Silence the progress bars and hints of the model libraries; their errors still come through."""
    import os
    import warnings

    # Saving state in one process is no mistake.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
