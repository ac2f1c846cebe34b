"""A phone: a site with few rows, on a slow line, that may vanish."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fedcore.rounds.site import Site
from fedcore.settings import at_least, require, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A site and its clock.

    download_s, compute_s, upload_s  medians of what takes how long, in seconds of the simulation
    spread                           standard deviation of their logarithms from time to time
    vanishes                         how often it is not heard of again after it has begun
    raises                           SettingError
    """

    site: Site = field(repr=False)
    download_s: float = 1.0
    compute_s: float = 5.0
    upload_s: float = 2.0
    spread: float = 0.3
    vanishes: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 0, "download_s", "compute_s", "upload_s", "spread")
        require(0 <= self.vanishes < 1, "vanishes", "in [0, 1)", self.vanishes)

    def takes(self, rng: np.random.Generator) -> tuple[float, bool]:
        """Draw how long it is from being asked to its upload, and whether there is one."""
        factor = math.exp(self.spread * rng.standard_normal())
        seconds = (self.download_s + self.compute_s + self.upload_s) * factor
        return seconds, bool(rng.random() >= self.vanishes)


def crowd(
    sites: Iterable[Site],
    *,
    seed: int,
    median_s: float = 8.0,
    between: float = 1.0,
    spread: float = 0.3,
    vanishes: float = 0.1,
) -> tuple[Phone, ...]:
    """Give every site a clock: some phones are much slower than others.

    seed      of the clocks
    median_s  seconds that a phone takes; between: standard deviation of their logarithm from phone to phone
    spread, vanishes  of every phone, as for `Phone`
    raises    SettingError
    """
    rng = np.random.default_rng(seed)
    phones = []
    for site in sites:
        seconds = median_s * math.exp(between * rng.standard_normal())
        download_s, compute_s, upload_s = (share * seconds for share in (0.1, 0.6, 0.3))
        phones.append(
            Phone(
                site=site,
                download_s=download_s,
                compute_s=compute_s,
                upload_s=upload_s,
                spread=spread,
                vanishes=vanishes,
            )
        )
    return tuple(phones)
