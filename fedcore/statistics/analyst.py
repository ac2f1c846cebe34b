"""Questions about the rows of all sites together, each answered by one or more secure sums.

What a site computes for them is in `sums`. Answers are about the sites that are in every sum of a
question. The server, and whoever reads the answer, learns the answer, the number of rows behind it, and
what each method adds below; of one site nothing. Two answers over sites that differ by one are an answer
about that one: do not repeat a question because a site was lost if that matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import Codec, WeightedMean
from fedcore.data.schema import Schema
from fedcore.errors import DataError, TaskError
from fedcore.rounds.aggregation import SumAggregator
from fedcore.rounds.attempts import Attempts
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.plan import STATISTICS_BITS
from fedcore.rounds.questions import (
    Count,
    Covariance,
    Cumulative,
    Deviation,
    Mean,
    Question,
    TaskKind,
)
from fedcore.rounds.task import Task
from fedcore.statistics import sums
from fedcore.statistics.standardizer import Standardizer, means_asked, to_mean, to_standardizer
from fedcore.statistics.sums import LABEL, Histogram, PrincipalComponents

# Rounding moves a count by less than clients * weight_cap / 2^31: up to this product, by less than a
# quarter, so that counts are whole numbers again after rounding.
EXACT = 2 ** (STATISTICS_BITS - 3)
OTHER = "other"  # rows whose value was not asked for


@dataclass(frozen=True, slots=True)
class Analyst:
    """Asks all sites of an aggregator.

    schema      of the rows, with public bounds; clients: most sites of a sum
    weight_cap  most rows that count for a site: with more, its shares count as those of so many rows
    attempts    for a sum that ends without a result
    raises      TaskError: too many clients and rows for exact counts. Every method raises the last
                RoundAbortedError or CodecError of a sum, and TaskError when the sums of one question are
                not over the same sites.
    """

    aggregator: SumAggregator
    schema: Schema
    clients: int
    weight_cap: int = 10_000
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise TaskError(f"attempts: must be at least 1, are {self.attempts}")
        codec = self.codec
        if codec.clients * codec.weight_cap > EXACT:
            raise TaskError(
                f"clients, weight_cap: counts are exact up to a product of {EXACT}, "
                f"is {codec.clients * codec.weight_cap}"
            )

    @property
    def codec(self) -> Codec:
        """Return the codec of the sums: as a TrainingPlan has it for statistics."""
        return Codec(clip=1.0, bits=STATISTICS_BITS, weight_cap=self.weight_cap, clients=self.clients)

    def rows(self) -> int:
        """Return the number of rows. One sum; it says nothing else."""
        target = self.schema.target
        nobody = np.array([[LABEL, -1.0 if target is None else target.low - 1.0]])  # a label that no row has
        return _Sums(self).ask(Count, len(nobody), cells=nobody).weight

    def standardizer(self) -> Standardizer:
        """Return means and deviations of the columns (over n). Two sums.

        Columns whose variance is below the resolution of the sums have the deviation 0.
        """
        question = _Sums(self)
        mean = question.mean()
        found = question.ask(Deviation, len(mean), mean=mean)
        return to_standardizer(mean, found.mean, self.schema, question.resolution(found))

    def histogram(self, bins: int) -> Histogram:
        """Return exact counts by bins of equal width within the bounds, see Histogram. One sum."""
        edges = sums.edges_of(self.schema, bins)
        found = _Sums(self).below(edges[:, 1:])
        return Histogram(edges, np.diff(found, axis=2, prepend=0)[:, 0])

    def ranges(self, bins: int) -> NDArray[np.float64]:
        """Return (columns, 2): ends of the lowest and of the highest bin that has rows. One sum.

        All values lie between them, the least and the greatest less than a bin's width away. The server
        learns the histogram.
        """
        histogram = self.histogram(bins)
        taken = histogram.counts > 0
        lowest = taken.argmax(axis=1)
        highest = bins - taken[:, ::-1].argmax(axis=1)
        every = np.arange(len(taken))
        return np.column_stack([histogram.edges[every, lowest], histogram.edges[every, highest]])

    def quantiles(
        self, probabilities: Sequence[float], rounds: int = 3, bins: int = 32
    ) -> NDArray[np.float64]:
        """Return quantiles of all columns, (columns, len(probabilities)). `rounds` sums.

        The p-quantile is the least value with a share p of the rows or more at or below it; of p = 0, the
        least value. What is returned is at or above it by less than range / bins^rounds, and a share p or
        more of the rows is at or below it. Each sum counts the rows at `bins` edges in the interval of
        every quantile, which is 1 / bins as wide in the next. The server learns all these counts: more
        rounds tell more about the rows near a quantile.
        raises  DataError: probabilities outside 0..1, rounds < 1, bins < 2
        """
        wanted = np.asarray(probabilities, float)
        if wanted.ndim != 1 or not wanted.size or not ((wanted >= 0) & (wanted <= 1)).all():
            raise DataError(f"probabilities: must be one or more in 0..1, are {list(probabilities)}")
        if rounds < 1 or bins < 2:
            raise DataError(f"rounds, bins: must be at least 1 and 2, are {rounds}, {bins}")
        question = _Sums(self)
        edges = sums.edges_of(self.schema, bins)
        low, high = (np.repeat(end[:, None], wanted.size, axis=1) for end in (edges[:, 0], edges[:, -1]))
        found = question.below(edges[:, :-1])
        low, high = _narrowed(low, high, edges[:, None, :-1], found < question.ranks(wanted)[:, None])
        for _ in range(rounds - 1):
            steps = np.arange(1, bins) / bins
            inner = np.minimum(low[:, :, None] + (high - low)[:, :, None] * steps, high[:, :, None])
            found = question.below(inner)
            low, high = _narrowed(low, high, inner, found < question.ranks(wanted)[:, None])
        return high

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance matrix, (columns, columns), over n. Two sums.

        Columns whose variance is below the resolution of the sums have zeros. The server learns the means.
        """
        question = _Sums(self)
        mean = question.mean()
        found = question.ask(Covariance, len(mean) * (len(mean) + 1) // 2, mean=mean)
        covariance = sums.to_covariance(found.mean, self.schema)
        unit = np.diag(covariance) / (self.schema.high - self.schema.low) ** 2
        spread = unit > question.resolution(found)
        return np.asarray(covariance * np.outer(spread, spread))

    def principal_components(self, count: int) -> PrincipalComponents:
        """Return the directions of largest variance, in units of the table. Two sums."""
        if not 1 <= count <= len(self.schema.columns):
            raise DataError(f"count: must be in 1..{len(self.schema.columns)}, is {count}")
        return sums.principal_components(self.covariance(), count)

    def correlation(self) -> NDArray[np.float64]:
        """Return Pearson's correlations, (columns, columns). Two sums, those of `covariance`.

        A column without spread correlates with itself alone: 1, and 0 with the others.
        """
        covariance = self.covariance()
        deviation = np.sqrt(np.diag(covariance))
        safe = np.where(deviation > 0, deviation, 1.0)
        correlation = np.clip(covariance / np.outer(safe, safe), -1.0, 1.0)
        np.fill_diagonal(correlation, 1.0)
        return np.asarray(correlation)

    def label_counts(self) -> dict[str, int]:
        """Return rows by class, exact. One sum. Raises DataError: the label is a number."""
        if self.schema.target is not None:
            raise DataError(f"label: {self.schema.target.name} is a number, it has no classes")
        cells = np.array([[LABEL, i] for i in range(len(self.schema.classes))], float)
        return dict(zip(self.schema.classes, _Sums(self).cells(cells), strict=True))

    def categories(self, column: str, values: Sequence[float]) -> dict[float | str, int]:
        """Return rows by value of a column, exact, and as OTHER those with none of the values. One sum.

        raises  DataError: no such column, no values, one that is not finite or twice there
        """
        names = [one.name for one in self.schema.columns]
        if column not in names:
            raise DataError(f"column: must be one of {names}, is {column!r}")
        wanted = [float(value) for value in values]
        if not wanted or len(set(wanted)) != len(wanted) or not all(map(math.isfinite, wanted)):
            raise DataError(f"values: must be one or more finite numbers, each once, are {wanted}")
        question = _Sums(self)
        counts = question.cells(np.array([[names.index(column), value] for value in wanted]))
        out: dict[float | str, int] = dict(zip(wanted, counts, strict=True))
        return out | {OTHER: question.total - sum(counts)}


def _nothing(*_of: object) -> None:
    pass


@dataclass(slots=True)
class _Sums:
    """The sums of one question.

    All sites are asked every time: a cohort of the survivors alone may be too small for the threat model.
    """

    analyst: Analyst
    sites: frozenset[str] = frozenset()  # in the sums so far
    total: int = 0  # rows of the last sum
    numbers: dict[TaskKind, int] = field(default_factory=dict)

    def ask(self, kind: type[Question], values: int, **arrays: NDArray[np.float64]) -> WeightedMean:
        """One sum of `values` numbers. Raises TaskError unless it is over the sites of the others."""
        analyst = self.analyst
        self.numbers[kind.kind] = number = self.numbers.get(kind.kind, 0) + 1
        encoding = Encoding(
            dimension=values,
            codec=analyst.codec,
            schema=analyst.schema,
            classes=analyst.schema.classes,
        )
        question = kind(number=number, **arrays)
        attempts = Attempts(
            analyst.aggregator, analyst.attempts, len(analyst.aggregator.names), _nothing, _nothing
        )
        summed = attempts.sum(Task(question=question, encoding=encoding))
        survivors = frozenset(summed.survivors)
        if changed := survivors ^ (self.sites or survivors):
            raise TaskError(
                f"{question.name}: {', '.join(sorted(changed))} in some sums of one question, not in all"
            )
        self.sites, self.total = survivors, summed.mean.weight
        return summed.mean

    def resolution(self, found: WeightedMean) -> float:
        """Largest error of a mean, in units of the range."""
        return self.analyst.codec.error_bound(len(self.sites), found.weight)

    def mean(self) -> NDArray[np.float64]:
        """Means of the columns, within the bounds."""
        schema = self.analyst.schema
        return to_mean(self.ask(Mean, means_asked(schema)).mean, schema)

    def below(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows at or below edges: (columns, k) gives (columns, 1, k), (columns, q, k) the same shape."""
        schema = self.analyst.schema
        if schema.filled.size:
            name = schema.columns[int(schema.filled[0])].name
            raise DataError(
                f'column {name}: a value that is missing has no place in an order: missing = "drop"'
            )
        edges = edges.reshape(len(edges), -1, edges.shape[-1])
        found = self.ask(Cumulative, edges.size, edges=edges.reshape(len(edges), -1))
        return self._counts(found).reshape(edges.shape)

    def cells(self, cells: NDArray[np.float64]) -> list[int]:
        """Rows with a value in a column; cells: (k, 2)."""
        found = self._counts(self.ask(Count, len(cells), cells=cells))
        return [int(count) for count in found]

    def ranks(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return which value in order each quantile is, from 1."""
        return np.maximum(np.ceil(probabilities * self.total * (1 - 1e-12)), 1.0)

    def _counts(self, found: WeightedMean) -> NDArray[np.int64]:
        return np.rint(found.mean * found.weight).astype(np.int64)


def _narrowed(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    inner: NDArray[np.float64],
    under: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals between the last edge with too few rows at or below it and the first with enough.

    low, high  (columns, q); inner: edges between them, (columns, q or 1, k); under: (columns, q, k)
    """
    shape = (*low.shape, inner.shape[2])
    edges = np.concatenate([low[:, :, None], np.broadcast_to(inner, shape), high[:, :, None]], axis=2)
    index = under.sum(axis=2)[:, :, None]
    return tuple(np.take_along_axis(edges, index + i, axis=2)[:, :, 0] for i in (0, 1))  # type: ignore[return-value]
