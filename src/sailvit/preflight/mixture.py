"""The mean sample of a stage whose sources are mixed, some of them up to a number of epochs."""

from __future__ import annotations

from collections.abc import Mapping

from sailvit.core.recipe import Stage
from sailvit.preflight.samples import MeanSample, mixed_sample
from sailvit.training.stages.stage_loader import samples_of


def mean_sample(
    stage: Stage, samples: Mapping[str, MeanSample], sizes: Mapping[str, int]
) -> MeanSample | None:
    """The stage's mean sample, given those of the sources that can be read, and the sizes of
    those that are there; None when none can be read.
    """
    # Sources that are not here yet are taken to be like those that are.
    known = [name for name in stage.data if name in samples]
    if not known:
        return None
    if len(known) == len(stage.data):
        given = _draws(stage, samples, sizes)
    else:
        given = stage.shares({name: sizes.get(name, 0) for name in stage.data})
    return mixed_sample(samples, {name: given[name] for name in known})


def _draws(
    stage: Stage, samples: Mapping[str, MeanSample], sizes: Mapping[str, int]
) -> dict[str, float]:
    """How often the stage draws from each source, in any unit."""
    shares, caps, asked = stage.shares(sizes), stage.caps(sizes), stage.length.tokens
    if not caps:
        return shares
    units = {name: samples[name].tokens if asked else 1.0 for name in shares}
    return expected_draws(shares, caps, asked or samples_of(stage, sizes) or 0, units)


def expected_draws(
    shares: Mapping[str, float],
    caps: Mapping[str, int],
    length: float,
    units: Mapping[str, float],
) -> dict[str, float]:
    """How often a stage draws from each source until it is `length` long.

    Sources are drawn from by `shares`, until one reaches its cap in `caps` and the others go on
    in their own proportions; `units` is how much a draw adds to the length.
    """
    left, going = length, dict(shares)
    # The first to be used up comes first; a source has then been drawn from share x `until` times.
    for name in sorted(caps, key=lambda name: caps[name] / shares[name]):
        until = caps[name] / shares[name]
        if left <= until * _pace(going, units):
            break
        left -= caps[name] * units[name]
        del going[name]
    until = left / _pace(going, units) if going else 0.0
    return {name: going[name] * until if name in going else float(caps[name]) for name in shares}


def _pace(shares: Mapping[str, float], units: Mapping[str, float]) -> float:
    return sum(share * units[name] for name, share in shares.items())
