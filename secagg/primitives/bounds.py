"""Threat model in, degree and threshold out; every bound stated (PROTOCOL.md, 1).

After Bell et al., CCS 2020, section 3.3, with an active condition of our own. Counts of clients are
exact integers; tails of the hypergeometric distribution are summed term by term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from secagg.errors import InfeasibleParameters
from secagg.params import MILLION, Adversary, GraphParameters, ThreatModel, require

COMPLETE_UP_TO = 64  # clients; below, the complete graph costs nothing that matters
_LARGEST_SUM_PPM = 900_000
# The choosers leave this much room, so that a checker whose logarithms round otherwise still agrees.
_MARGIN = 1 - 2**-20


def upper_tail(population: int, marked: int, draws: int, x: int) -> float:
    """P[X > x], X the marked ones among `draws` drawn without replacement (hypergeometric)."""
    lowest, highest = max(0, draws - (population - marked)), min(marked, draws)
    if x < lowest:
        return 1.0
    if x >= highest:
        return 0.0
    if (x + 1) * population <= marked * draws:  # below the mean: the other tail is the short one
        return 1.0 - _sum_from(population, population - marked, draws, draws - x)
    return _sum_from(population, marked, draws, x + 1)


def _sum_from(population: int, marked: int, draws: int, first: int) -> float:
    """Sum of the point probabilities of first, first + 1, ...; `first` is not below the mean."""
    unmarked, highest = population - marked, min(marked, draws)
    if first > highest:
        return 0.0
    logarithm = (
        _log_choose(marked, first) + _log_choose(unmarked, draws - first) - _log_choose(population, draws)
    )
    term = total = math.exp(logarithm)
    for j in range(first, highest):
        term *= (marked - j) * (draws - j) / ((j + 1) * (unmarked - draws + j + 1))
        total += term
        if term < total * 2**-60:
            break
    return total


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def colluders(clients: int, degree: int, model: ThreatModel) -> int:
    """Most clients that collude: C = floor(corrupt n), and A = ceil(corrupt n) on the complete graph."""
    return _most(model.corrupt_ppm, clients, degree)


def dropouts(clients: int, degree: int, model: ThreatModel) -> int:
    """Most clients that drop out: D, rounded as the colluders are (PROTOCOL.md, 1)."""
    return _most(model.dropout_ppm, clients, degree)


def _most(ppm: int, clients: int, degree: int) -> int:
    exact = ppm * clients
    return -(-exact // MILLION) if degree == clients - 1 else exact // MILLION


def quorum(clients: int, degree: int, model: ThreatModel) -> int:
    """Survivor signatures that cannot exist for two different sets: more than (n + C) / 2."""
    return (clients + colluders(clients, degree, model)) // 2 + 1


def effective_minimum(clients: int, degree: int, model: ThreatModel, minimum_survivors: int) -> int:
    """Fewest survivors: what was asked for, and enough that a sum holds two honest clients."""
    return max(minimum_survivors, colluders(clients, degree, model) + 2)


def _privacy_bound(clients: int, model: ThreatModel) -> float:
    """2^-(s + 1) / n, with s = security_bits, plus grinding_bits when active."""
    return 2.0 ** -(_strength(model) + 1) / clients


def _strength(model: ThreatModel) -> int:
    return model.security_bits + (model.grinding_bits if model.active else 0)


def _smallest_bound(clients: int, marked: int, draws: int, bound: float, start: int = 0) -> int:
    """Smallest x >= start with P[more than x of `draws` are marked] <= bound."""
    x = start
    while upper_tail(clients, marked, draws, x) > bound:
        x += 1
    return x


@lru_cache(maxsize=1024)
def neighbor_collusion(clients: int, degree: int, model: ThreatModel) -> int:
    """t1: more than this many neighbors of somebody collude only with probability 2^-(s + 1).

    On the complete graph all A colluders are neighbors.
    """
    if degree == clients - 1:
        return colluders(clients, degree, model)
    c = colluders(clients, degree, model)
    return _smallest_bound(clients, c, degree, _privacy_bound(clients, model), c * degree // clients)


@lru_cache(maxsize=1024)
def likely_collusion(clients: int, degree: int, model: ThreatModel) -> int:
    """Smallest x with P[more than x of an honest client's k neighbors collude] <= 2^-correctness_bits / n.

    The neighbors of one that does not collude are k of the n - 1 others, all colluders among them. So in a
    round the probability that any honest client has more is below 2^-correctness_bits. On the complete
    graph all A colluders are neighbors: there is no chance in it.
    """
    c = colluders(clients, degree, model)
    bound = 2.0**-model.correctness_bits / clients
    return _smallest_bound(clients - 1, c, degree, bound, c * degree // (clients - 1))


@lru_cache(maxsize=1024)
def window_collusion(clients: int, degree: int, model: ThreatModel) -> int:
    """w: more than this many of degree / 2 successive clients collude only with probability 2^-(s + 1)."""
    c = colluders(clients, degree, model)
    half = degree // 2
    return _smallest_bound(clients, c, half, _privacy_bound(clients, model), c * half // clients)


def log2_disconnected(clients: int, degree: int, removed: int) -> float:
    """log2 of the union bound that the graph without `removed` clients falls apart (condition a)."""
    if removed < degree:
        return -math.inf
    if removed >= clients:
        return math.inf
    pairs = clients * (clients - degree - 1) / 2
    log_all_removed = _log_choose(clients - degree, removed - degree) - _log_choose(clients, removed)
    return math.log2(pairs) + log_all_removed / math.log(2)


def stays_connected(clients: int, degree: int, model: ThreatModel, removed: int) -> bool:
    """Condition (a) with so many removed: what is left is connected but with probability 2^-(s + 1)."""
    return log2_disconnected(clients, degree, removed) < -(_strength(model) + 1)


def harary_parameters(
    *,
    clients: int,
    corrupt: float = 0.1,
    dropout: float = 0.1,
    adversary: Adversary = "active",
    security_bits: int = 40,
    correctness_bits: int = 20,
    grinding_bits: int = 40,
) -> GraphParameters:
    """Smallest even degree k < clients - 1 that meets conditions (a) to (d), and its threshold.

    raises  ParameterError; InfeasibleParameters, which says which demand to relax
    """
    model = ThreatModel(
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary,
        security_bits=security_bits,
        correctness_bits=correctness_bits,
        grinding_bits=grinding_bits,
    )
    require(isinstance(clients, int) and clients >= 1, "clients", "an integer, at least 1", clients)
    return _harary(clients, model)


def choose_parameters(
    *,
    clients: int,
    corrupt: float = 0.1,
    dropout: float = 0.1,
    adversary: Adversary = "active",
    security_bits: int = 40,
    correctness_bits: int = 20,
    grinding_bits: int = 40,
) -> GraphParameters:
    """Degree and threshold that a round uses.

    Up to 64 clients the complete graph, beyond `harary_parameters`, and the complete graph again
    where that is infeasible.

    raises  ParameterError; InfeasibleParameters, which says what helps
    """
    model = ThreatModel(
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary,
        security_bits=security_bits,
        correctness_bits=correctness_bits,
        grinding_bits=grinding_bits,
    )
    return choose_for(clients, model)


@lru_cache(maxsize=64)
def choose_for(clients: int, model: ThreatModel) -> GraphParameters:
    """`choose_parameters` for a threat model."""
    require(isinstance(clients, int) and clients >= 1, "clients", "an integer, at least 1", clients)
    if clients > COMPLETE_UP_TO:
        try:
            return _harary(clients, model)
        except InfeasibleParameters:
            pass
    graph = _complete(clients, model)
    if graph is None:
        raise InfeasibleParameters(_advice(clients, model))
    return graph


def check_parameters(clients: int, graph: GraphParameters, model: ThreatModel) -> None:
    """Raise ParameterError unless degree and threshold protect this many clients under this model."""
    k, t = graph.degree, graph.threshold
    if k != clients - 1:
        require(clients > COMPLETE_UP_TO, "degree", f"{clients - 1} for {clients} clients", k)
        require(k % 2 == 0 and 2 <= k < clients - 1, "degree", f"even and in 2..{clients - 2}", k)
    lowest = max(2, neighbor_collusion(clients, k, model) + 1)
    require(lowest <= t <= k, "threshold", f"in {lowest}..{k}", t)
    if k != clients - 1 and not model.active:
        removed = colluders(clients, k, model) + dropouts(clients, k, model)
        rule = f"large enough for 2^{-(_strength(model) + 1)} (a)"
        require(stays_connected(clients, k, model, removed), "degree", rule, k)


def _harary(n: int, model: ThreatModel) -> GraphParameters:
    if model.corrupt_ppm + model.dropout_ppm > _LARGEST_SUM_PPM:
        raise InfeasibleParameters(
            f"corrupt + dropout = {model.corrupt + model.dropout:g} is above 0.9: lower corrupt or dropout"
        )
    c, d = model.corrupt_ppm * n // MILLION, model.dropout_ppm * n // MILLION
    if model.active and n - d < (n + c) // 2 + 1:
        raise InfeasibleParameters(
            f"{n - d} of {n} clients stay, a quorum against {c} colluders needs {(n + c) // 2 + 1}: "
            "lower dropout or corrupt"
        )
    privacy = _privacy_bound(n, model) * _MARGIN
    correctness = 2.0**-model.correctness_bits / n * _MARGIN
    connectivity = -(_strength(model) + 1) + math.log2(_MARGIN)
    t1 = w = 0  # both only grow with the degree
    for k in range(2, n - 1, 2):
        if not model.active and log2_disconnected(n, k, c + d) >= connectivity:
            continue
        t1 = _smallest_bound(n, c, k, privacy, t1)
        t = max(t1 + 1, 2)
        if upper_tail(n, d, k, k - t) > correctness:
            continue
        if model.active:
            w = _smallest_bound(n, c, k // 2, privacy, w)
            if upper_tail(n, d, k // 2, k // 2 - w - 1) > correctness:
                continue
        return GraphParameters(degree=k, threshold=t)
    raise InfeasibleParameters(
        f"no degree below {n - 1} meets the demands for {n} clients: "
        "lower corrupt, dropout, security_bits, grinding_bits or correctness_bits, or have more clients"
    )


def _complete(n: int, model: ThreatModel) -> GraphParameters | None:
    """Parameters on the complete graph, or None where the demands cannot be met."""
    k = n - 1
    a, d = -(-model.corrupt_ppm * n // MILLION), -(-model.dropout_ppm * n // MILLION)
    majority = (k + a) // 2 + 1
    t = max(2, a + 1, min(majority, k - d))
    if t > k - d or (model.active and n - d < (n + a) // 2 + 1):
        return None
    return GraphParameters(degree=k, threshold=t)


def _advice(n: int, model: ThreatModel) -> str:
    """Say what was asked and which single change would make it feasible."""
    helps = []
    if _complete(n, replace(model, dropout=0.0)):
        helps.append("dropout=0 (everybody must stay)")
    most = -(-model.corrupt_ppm * n // MILLION)
    for a in range(min(most, n) - 1, -1, -1) if n <= COMPLETE_UP_TO else ():
        corrupt = a * MILLION // n / MILLION  # rounded down, so that it still means `a` colluders
        if _complete(n, replace(model, corrupt=corrupt)):
            helps.append(f"corrupt={corrupt:.6g} ({a} colluders)")
            break
    more = next((m for m in range(n + 1, COMPLETE_UP_TO + 1) if _complete(m, model)), None)
    if more is not None:
        helps.append(f"{more} clients")
    if n > COMPLETE_UP_TO:  # where one step is a small share, the largest rate that works says more
        helps = []
        rates: dict[str, Callable[[float], ThreatModel]] = {
            "dropout": lambda rate: replace(model, dropout=rate),
            "corrupt": lambda rate: replace(model, corrupt=rate),
        }
        for name, with_rate in rates.items():
            rate = _largest_rate(n, with_rate, getattr(model, f"{name}_ppm"))
            if rate is not None:
                helps.append(f"{name}={rate:.6g}")
    return (
        f"{n} clients cannot meet corrupt={model.corrupt:g}, dropout={model.dropout:g}, "
        f"adversary={model.adversary!r}; what helps: {' or '.join(helps) or 'fewer colluders and dropouts'}"
    )


def _largest_rate(n: int, with_rate: Callable[[float], ThreatModel], highest_ppm: int) -> float | None:
    """Largest rate below `highest_ppm` that is feasible on the complete graph; None when not even 0 is."""
    if not _complete(n, with_rate(0.0)):
        return None
    low, high = 0, highest_ppm
    while high - low > 1:
        middle = (low + high) // 2
        if _complete(n, with_rate(middle / MILLION)):
            low = middle
        else:
            high = middle
    return low / MILLION
