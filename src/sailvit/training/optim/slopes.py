"""Slopes: a straight line through the losses of a window, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """The least-squares line through the losses of consecutive steps, with standard errors."""

    slope: float
    """Loss per step; negative while the loss falls."""
    slope_error: float
    """Its standard error: how far the scatter of the losses alone could have turned the
    line."""
    end: float
    """The line's value at the last step."""
    end_error: float
    """Its standard error."""


def fit_line(losses: Sequence[float]) -> Line:
    """The line through at least three losses, one per step."""
    # fsum rounds only once: a slope is a small difference of large sums.
    count = len(losses)
    middle, mean = (count - 1) / 2, math.fsum(losses) / count
    spread = math.fsum((step - middle) ** 2 for step in range(count))
    slope = math.fsum((step - middle) * loss for step, loss in enumerate(losses)) / spread
    off = math.fsum(
        (loss - mean - slope * (step - middle)) ** 2 for step, loss in enumerate(losses)
    )
    scatter = math.sqrt(off / (count - 2))
    return Line(
        slope=slope,
        slope_error=scatter / math.sqrt(spread),
        end=mean + slope * middle,
        end_error=scatter * math.sqrt(1 / count + middle**2 / spread),
    )
