"""Keeping libraries from writing over the progress display."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Silence the progress bars and hints of the model libraries; their errors still come through."""
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
