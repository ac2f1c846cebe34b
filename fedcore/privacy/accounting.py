"""Accounting over rounds: differential privacy of sums to which every party adds integer noise.

Adjacency is at the level of users: two cohorts that differ in one user, whose whole vector is replaced by
zero; its noise stays, and the number of survivors is public. The sensitivities are hence norms of
one user's vector. No amplification by sampling is claimed, because the server chooses the cohort. Reducing a
noisy sum modulo the ring loses information and so costs nothing.

Curves are Renyi differential privacy (RDP; Mironov 2017): one number per order, added up over rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcore.errors import FedcoreError, needs
from fedcore.privacy.samplers import STEPS_LIMIT
from secagg import ParameterError

DEFAULT_ORDERS = (
    *(1 + x / 10 for x in range(1, 100)),
    *map(float, range(11, 64)),
    *(float(round(64 * 2 ** (x / 8))) for x in range(65)),  # to 16 384: small epsilons need large orders
)
"""Orders above 1. The best one is near 1 + 2 log(1 / delta) / epsilon."""

_VARIANCE_TOLERANCE = 1e-3
_ROUNDING = 1e-9  # relative; above what adding up a million rounds loses


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ParameterError(f"{name}: must be positive and finite, is {value}")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ParameterError(f"delta: must be between 0 and 1, is {delta}")


class Mechanism(StrEnum):
    """The noise: who adds it, and of which distribution."""

    GAUSSIAN = "gaussian"  # central and continuous, for comparison
    DISCRETE_GAUSSIAN = "discrete_gaussian"  # distributed (Kairouz, Liu, Steinke, ICML 2021)
    SKELLAM = "skellam"  # distributed (Agarwal, Kairouz, Liu, NeurIPS 2021)


class BudgetExceededError(FedcoreError):
    """The next round would reveal more than the budget allows."""

    exit_status = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that all rounds together may reveal: (epsilon, delta) differential privacy."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        _check_delta(self.delta)


def l1_bound(l2: float, dimension: int) -> float:
    """Return the largest L1 norm of an integer vector with this L2 norm and dimension: min(sqrt(d) l2, l2^2).

    The first is Cauchy-Schwarz; the second holds because |x| <= x^2 for an integer.
    """
    return min(math.sqrt(dimension) * l2, l2 * l2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Release of one round: an integer vector plus the noise of several parties, in steps of the ring.

    l2         L2 norm that one user's vector, after rounding, never exceeds
    l1         the same for the L1 norm; `l1_bound` if nothing better is known
    dimension  entries of the vector
    variance   of ONE party's noise per entry; for the discrete Gaussian its parameter
    parties    honest parties whose noise is in the sum: survivors less colluders; 1 for GAUSSIAN

    ParameterError: a number that is not finite, not positive (norms may be 0), or above the sampler's limit.
    """

    mechanism: Mechanism
    l2: float
    l1: float
    dimension: int
    variance: float
    parties: int

    def __post_init__(self) -> None:
        for name in ("l2", "l1"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(f"{name}: must be finite and at least 0, is {getattr(self, name)}")
        for name in ("variance", "dimension", "parties"):
            _positive(name, getattr(self, name))
        if self.mechanism is not Mechanism.GAUSSIAN and self.variance > STEPS_LIMIT**2:
            raise ParameterError(f"variance: must be at most {STEPS_LIMIT}^2 steps, is {self.variance}")

    def rdp(self, orders: ArrayLike) -> NDArray[np.float64]:
        """Return an upper bound of the Renyi divergence at each order; shape as given, orders above 1."""
        alphas = np.asarray(orders, np.float64)
        if not np.all(alphas > 1):
            raise ParameterError(f"orders: must be above 1, smallest is {alphas.min()}")
        curves = {
            Mechanism.GAUSSIAN: _gaussian,
            Mechanism.DISCRETE_GAUSSIAN: _discrete_gaussian,
            Mechanism.SKELLAM: _skellam,
        }
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # next to no noise: infinity
            found = curves[self.mechanism](self, alphas)
        return np.where(np.isnan(found), np.inf, found)


def _gaussian(release: Release, alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mironov 2017, proposition 7."""
    rho: np.float64 = release.l2**2 / np.float64(2 * release.parties * release.variance)
    return alphas * rho


def tau(variance: float, parties: int) -> float:
    """Return how far the sum of discrete Gaussians is from one discrete Gaussian of the summed variance.

    With f the logarithm of the ratio of the two masses: an upper bound of max f - min f. Kairouz, Liu and
    Steinke (ICML 2021, theorem 1) use 10 sum exp(-2 pi^2 variance k / (k + 1)) for k = 1 .. parties - 1,
    of which this is less than half from a variance of 1/4 on. Adding one party to k multiplies a discrete
    Gaussian by the sum of exp(-(j - y)^2 / (2 v)) over all integers j, v = variance k / (k + 1); that is
    largest at integers y and smallest at halves, and a convolution keeps the range of what was before.
    """
    k = np.arange(1, parties, dtype=np.float64)
    spread = variance * k / (k + 1)
    j = np.arange(1, 12, dtype=np.float64)[:, None]
    # Large v: by Poisson summation 1 + 2 sum exp(-2 pi^2 v j^2) cos(2 pi j y), shown as log1p of the excess.
    wide = np.maximum(spread, 0.2)
    waves = 2 * np.exp(-2 * (np.pi * j) ** 2 * wide)
    crest, trough = waves.sum(0), (waves * (-1) ** j).sum(0)
    by_waves = np.log1p(crest) - np.log1p(trough)
    # Small v: the sums themselves; the halves have exp(-1 / (8 v)) in front.
    narrow = np.minimum(spread, 0.2)
    top = np.log1p(2 * np.exp(-(j**2) / (2 * narrow)).sum(0))
    bottom = math.log(2) - 1 / (8 * narrow) + np.log1p(np.exp(-(j**2 + j) / (2 * narrow)).sum(0))
    return float(np.where(spread > 0.2, by_waves, top - bottom).sum())


def _discrete_gaussian(release: Release, alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kairouz, Liu, Steinke 2021, proposition 14, from a `tau` that is proven here for all orders above 1.

    With P the mass of the sum, s^2 = parties * variance, and the user moving it by D in one coordinate:
    log P(x) / P(x - D) = (D^2 - 2 x D) / (2 s^2) + f(x) - f(x - D), where the last two differ by at most tau.
    - The sum is s^2-sub-Gaussian, as its parts are (Canonne et al. 2020), so that the divergence is
      at most alpha D^2 / (2 s^2) + tau; and 0 for D = 0, true of all but l1 coordinates.
    - Or with M(x) ~ P(x) exp(x D / s^2) in between: from P to M alpha D^2 / (2 s^2), from M to the
      moved P, whose log ratio has a range of 2 tau, alpha tau^2 / 2; together alpha (D / s + tau)^2 / 2
      by the triangle inequality of Bun and Steinke (2016, lemma 5.2).
    Both are summed over the coordinates. The form (alpha / 2) (D^2 / s^2 + tau' / 2) of their theorem 1,
    tau' = 10 sum .., is not used: below its condition sigma >= 1/2 it fails for orders near 1.
    """
    s2 = np.float64(release.parties * release.variance)
    gap = tau(release.variance, release.parties)
    moved = min(release.dimension, math.floor(release.l1 * (1 + _ROUNDING)))
    l1 = min(release.l1, math.sqrt(moved) * release.l2)
    gaussian = alphas * release.l2**2 / (2 * s2)
    added = moved * gap
    scaled = alphas * (l1 * gap / math.sqrt(s2) + moved * gap**2 / 2)
    return gaussian + np.minimum(added, scaled)


def _skellam(release: Release, alphas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Agarwal, Kairouz, Liu 2021, theorem 3.5, which holds for whole orders.

    In between, (alpha - 1) times the divergence is convex in alpha (and 0 at 1), hence below the chord.
    """
    mu, l1, l2 = np.float64(release.parties * release.variance), release.l1, release.l2

    def whole(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
        correction = np.minimum(((2 * alpha - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
        return alpha * l2**2 / (2 * mu) + correction

    below, above = np.floor(alphas), np.ceil(alphas)
    part = alphas - below
    chord: NDArray[np.float64] = (1 - part) * (below - 1) * whole(below) + part * (above - 1) * whole(above)
    chord /= alphas - 1
    return chord


class Accountant:
    """Adds up what rounds reveal; `epsilon` is what it comes to at the given delta.

    The conversion from Renyi divergences is that of dp-accounting (Canonne, Kamath, Steinke 2020, proposition
    12). Constructing without that library raises FedcoreError; ParameterError: delta not between 0 and 1,
    orders not above 1.
    """

    def __init__(self, delta: float, orders: Iterable[float] = DEFAULT_ORDERS) -> None:
        _check_delta(delta)
        self._delta, self._rounds = float(delta), 0
        self._orders = np.array(tuple(orders), np.float64)
        if not self._orders.size or not np.all(self._orders > 1):
            raise ParameterError("orders: must be one or more numbers above 1")
        self._rdp = np.zeros(self._orders.size)
        self._convert = _conversion()

    @property
    def delta(self) -> float:
        """The delta that `epsilon` belongs to."""
        return self._delta

    @property
    def rounds(self) -> int:
        """Releases spent so far."""
        return self._rounds

    @property
    def epsilon(self) -> float:
        """All releases so far together are (epsilon, delta) differentially private; 0.0 before the first."""
        return self._epsilon_of(self._rdp)

    def after(self, release: Release) -> float:
        """Return what `epsilon` would be if this release were spent, too; nothing changes."""
        return self._epsilon_of(self._rdp + release.rdp(self._orders))

    def spend(self, release: Release) -> None:
        """Count a release. ParameterError, and no change, if its divergence is not finite."""
        total = self._rdp + release.rdp(self._orders)
        if not np.all(np.isfinite(total)):
            raise ParameterError(f"release: its noise bounds nothing (variance {release.variance})")
        self._rdp, self._rounds = total, self._rounds + 1

    def require(self, release: Release, budget: Budget) -> None:
        """Raise BudgetExceededError if this release would pass the budget; nothing is spent in either case.

        ParameterError: the budget is for another delta than this accountant.
        """
        if budget.delta != self._delta:
            raise ParameterError(f"delta: the accountant's is {self._delta}, the budget's {budget.delta}")
        then = self.after(release)
        if not then <= budget.epsilon:
            raise BudgetExceededError(
                f"epsilon: is {self.epsilon:.6g} after {self._rounds} rounds, would be {then:.6g} "
                f"after the next, limit {budget.epsilon:.6g} (delta {self._delta:.3g})"
            )

    def state(self) -> dict[str, Any]:
        """Return all of it as values for JSON, from which `restore` goes on bit by bit alike."""
        rdp, orders = self._rdp.tolist(), self._orders.tolist()
        return {"delta": self._delta, "rounds": self._rounds, "orders": orders, "rdp": rdp}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """Return the accountant that `state` was taken from. ParameterError: not such a state."""
        try:
            delta, rounds = float(state["delta"]), int(state["rounds"])
            orders, rdp = [np.array(state[name], np.float64) for name in ("orders", "rdp")]
        except (KeyError, TypeError, ValueError) as err:
            raise ParameterError(f"state: not an accountant's ({err!r})") from err
        found = cls(delta, orders)
        if rdp.shape != orders.shape or rounds < 0 or not np.all((rdp >= 0) & np.isfinite(rdp)):
            raise ParameterError(
                "state: rdp must be finite, not negative, and as many as orders; rounds not negative"
            )
        found._rdp, found._rounds = rdp, rounds
        return found

    def _epsilon_of(self, rdp: NDArray[np.float64]) -> float:
        return float(self._convert(self._orders, rdp, self._delta)[0])


def _conversion() -> Callable[..., tuple[float, float]]:
    try:
        from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
    except ImportError as error:
        raise FedcoreError(needs("accounting", "dp", error)) from error
    found: Callable[..., tuple[float, float]] = compute_epsilon
    return found


def calibrate(
    mechanism: Mechanism,
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    l2: float,
    l1: float,
    dimension: int,
    parties: int,
) -> float:
    """Return the smallest variance of one party's noise under which the rounds stay within (epsilon, delta).

    Found by bisection up to a factor 1.001, from above, so that the rounds do fit by an Accountant with the
    default orders. The other arguments are those of `Release`. ParameterError: an argument out
    of range, or no variance up to the limit of the sampler (for GAUSSIAN 2^64 l2^2) is enough.
    """
    budget = Budget(epsilon, delta)
    for name, value in (("rounds", rounds), ("l2", l2)):
        _positive(name, value)
    convert, orders = _conversion(), np.array(DEFAULT_ORDERS)

    def fits(variance: float) -> bool:
        release = Release(
            mechanism=mechanism, l2=l2, l1=l1, dimension=dimension, variance=variance, parties=parties
        )
        spent = release.rdp(orders) * (rounds * (1 + _ROUNDING))
        return bool(convert(orders, spent, budget.delta)[0] <= budget.epsilon)

    high = float(STEPS_LIMIT**2) if mechanism is not Mechanism.GAUSSIAN else 2.0**64 * l2**2
    low = high * 2.0**-128  # with noise this small no budget of any use is kept
    if not fits(high):
        raise ParameterError(f"epsilon: {epsilon} over {rounds} rounds needs a variance above {high:.6g}")
    while high > low * (1 + _VARIANCE_TOLERANCE):
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
