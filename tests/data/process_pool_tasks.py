"""Tasks for a process pool; here, so that its processes need not import what tests do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sailvit.core.errors import DataError


class Doubled:
    """A task."""

    def __call__(self, job: int) -> int:
        time.sleep(0.01 * (job % 3))
        return 2 * job


class Dying(Doubled):
    def __call__(self, job: int) -> int:
        if job == 3:
            os._exit(9)
        return job


class Refusing(Doubled):
    def __call__(self, job: int) -> int:
        if job == 3:
            raise DataError("three is refused", kind="three")
        return job


class Endless:
    """Writes down which process it runs in, and stays there."""

    def __call__(self, job: int) -> int:
        Path(f"process-{os.getpid()}").write_text("")
        time.sleep(600)
        return job
