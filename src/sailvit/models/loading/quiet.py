"""Keeping libraries from writing over the progress display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Silence the progress bars and hints of the model libraries; their errors still come
    through.
    """
    import os
    import warnings

    # A checkpoint that one process writes is no mistake.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
    # tokenizers warns when a process forks after using its threads, as loaders do.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def quietly() -> Iterator[None]:
    """A context in which these libraries are silent; their settings are restored after it."""
    import os
    import warnings

    from transformers.utils import logging

    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        quiet_libraries()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
            if parallel is None:
                os.environ.pop("TOKENIZERS_PARALLELISM", None)
