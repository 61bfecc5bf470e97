"""Learning rates over a stage, as settings: the shape they follow, and the search for their
height.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from sailvit.core.config import Config

Shape = Literal["cosine", "linear", "constant", "wsd"]
"""How a rate goes on after warm-up, as a function of the share of the stage that is done."""
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
AboveOne = Annotated[float, Field(gt=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]


# Warmup-stable-decay: Hu et al., MiniCPM (arXiv 2404.06395); the fall by 1 - sqrt: Hägele et
# al. (arXiv 2405.18392).
class DecayConfig(Config):
    """The last part of `wsd`: the rate is stable until it begins."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the stage, at its end, over which the rate falls."""
    shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """How it falls; `sqrt` is 1 - sqrt(share of the decay done): fast at first."""


class SearchConfig(Config):
    """Learning-rate search (AdaLRS): raise the rate, keep it if the loss falls faster, else go
    back and lower it.
    """

    base: Shape = "wsd"
    """The schedule whose rate is multiplied by the factor that the search finds."""
    window: Annotated[int, Field(ge=4)] = 50
    """Steps that the slope of the loss is estimated over; a trial lasts as long."""
    widest: Annotated[int, Field(ge=1)] = 8
    """The window doubles after an undecided trial, up to this many times its first length."""
    raise_by: AboveOne = 3.0
    """Factor of a trial raise (alpha)."""
    lower_by: AboveOne = 2.0
    """Divisor after a raise that made things worse (beta); shares no factor with `raise_by`, so
    no rate comes twice."""
    shrink: Inside = 0.9
    """What both factors are multiplied by after every change of the rate, down to 1
    (lambda)."""
    errors: Positive = 2.0
    """Mean errors of the two slopes by which they must differ for a decision."""
    until: Share = 0.5
    """Share of the stage after which no trial begins."""
    least: Positive = 0.01
    """Lowest rate, as a factor on the given one."""
    most: Positive = 100.0
    """Highest rate, as a factor on the given one."""
    keep: Literal["cpu", "device"] = "cpu"
    """Where the copy is kept that a trial returns to: all weights that train, with both
    moments."""

    @model_validator(mode="after")
    def _holds_together(self) -> SearchConfig:
        if self.least > 1 or self.most < 1:
            raise ValueError(
                f"the search starts at factor 1, which must lie within least {self.least:g} and most {self.most:g}"
            )
        if share_a_factor(self.raise_by, self.lower_by):
            raise ValueError(
                f"raise_by {self.raise_by:g} and lower_by {self.lower_by:g} share a factor, so raising and lowering"
                " would try the same rates again; take two that share none, such as 3 and 2"
            )
        return self


class ScheduleConfig(Config):
    """Learning rate over a stage, as a function of the share of its length that is done."""

    name: Literal["cosine", "linear", "constant", "wsd", "adalrs"] = "cosine"
    """Shape after warm-up; `adalrs` searches for the height of another shape while it
    trains."""
    warmup: Share = 0.03
    """Share of the stage over which the rate rises linearly from 0."""
    final: Share = 0.0
    """Share of the peak rate at the end."""
    decay: DecayConfig | None = None
    """How `wsd` ends; its defaults when left out."""
    search: SearchConfig | None = None
    """How `adalrs` searches; its defaults when left out."""

    @property
    def shape(self) -> Shape:
        """The shape that the rate follows: the schedule's own, or that of the search's base."""
        if self.name == "adalrs":
            assert self.search is not None
            return self.search.base
        return self.name

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_the_named(
        cls, value: Any, validate: ModelWrapValidatorHandler[ScheduleConfig]
    ) -> ScheduleConfig:
        """Fill in the settings that the named schedule has, so that a resolved recipe shows
        them. They count as left out, so that another name may be set.
        """
        if not isinstance(value, dict):
            return validate(value)
        name, search = value.get("name"), value.get("search")
        given = search if isinstance(search, dict) else {}
        base = search.base if isinstance(search, SearchConfig) else given.get("base", "wsd")
        has = {
            "search": name == "adalrs",
            "decay": name == "wsd" or (name == "adalrs" and base == "wsd"),
        }
        filled: dict[str, Any] = {key: {} for key in has if has[key] and value.get(key) is None}
        made = validate({**value, **filled})
        made.model_fields_set.difference_update(filled)
        return made

    @model_validator(mode="after")
    def _settings_of_the_named(self) -> ScheduleConfig:
        if self.search is not None and self.name != "adalrs":
            raise ValueError(
                f"schedule {self.name} has no `search`; take the name adalrs, or leave `search` out"
            )
        if self.decay is not None and self.shape != "wsd":
            raise ValueError(
                f"schedule {self.shape} has no `decay`; take the shape wsd, or leave `decay` out"
            )
        # 1e-9 below: 1 - 0.2 and the like are not exact in binary.
        stable = 1.0 if self.decay is None else 1.0 - self.decay.share
        if self.warmup > stable + 1e-9 and self.decay is not None:
            raise ValueError(
                f"warmup {self.warmup:g} and decay.share {self.decay.share:g} overlap; together they may be 1 at most"
            )
        if self.search is not None and not self.warmup < self.search.until <= stable + 1e-9:
            raise ValueError(
                f"search.until is {self.search.until:g}, but the rate is searched for between warm-up and decay:"
                f" expected more than {self.warmup:g} and at most {stable:g}"
            )
        return self


def share_a_factor(a: float, b: float) -> bool:
    """Whether two numbers above 1 are powers of one number or, where whole, have a common
    divisor.
    """
    if a.is_integer() and b.is_integer():
        return math.gcd(int(a), int(b)) > 1
    return any(math.isclose(a**i, b**j, rel_tol=1e-9) for i in range(1, 5) for j in range(1, 5))
