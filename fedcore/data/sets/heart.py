"""Heart disease in four hospitals, split as FLamby splits it (ogier du Terrail et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcore.data.schema import Column, Schema
from fedcore.data.sets.folder import read_lines, read_rows
from fedcore.data.table import Table
from fedcore.errors import DataError

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
# Bounds a clinician would write down before seeing any patient; positions in the raw file first.
_PLAIN: dict[int, Column] = {
    0: Column("age", 0, 120),
    1: Column("sex", 0, 1),
    3: Column("trestbps", 0, 300),
    4: Column("chol", 0, 1000),
    5: Column("fbs", 0, 1),
    7: Column("thalach", 0, 300),
    8: Column("exang", 0, 1),
    9: Column("oldpeak", -10, 10),
}
_LEVELS: dict[int, tuple[str, tuple[int, ...]]] = {2: ("cp", (1, 2, 3, 4)), 6: ("restecg", (0, 1, 2))}
_ANSWER = 13
_STANDARDIZED = (-20.0, 20.0)  # no value of a standardised column of some hundred rows lies further out
HEART_SCHEMA = Schema(
    (
        *_PLAIN.values(),
        *(Column(f"{name}={level}", 0, 1) for name, levels in _LEVELS.values() for level in levels[1:]),
    ),
    ("healthy", "ill"),
)


@dataclass(frozen=True, slots=True)
class HeartDisease:
    """Raw rows by hospital: 13 features each, label 1 for any disease."""

    train: dict[str, Table]
    test: dict[str, Table]
    schema: Schema = HEART_SCHEMA

    def standardized(self) -> HeartDisease:
        """Return the rows as FLamby has them: scaled by each hospital's own training rows, with n - 1."""
        sets: tuple[dict[str, Table], dict[str, Table]] = {}, {}
        for name, own in self.train.items():
            mean, deviation = own.features.mean(axis=0), own.features.std(axis=0, ddof=1) + 1e-9
            for scaled, table in zip(sets, (own, self.test[name]), strict=True):
                scaled[name] = Table((table.features - mean) / deviation, table.labels)
        columns = tuple(Column(column.name, *_STANDARDIZED) for column in self.schema.columns)
        return HeartDisease(*sets, Schema(columns, self.schema.classes))


def heart_disease() -> HeartDisease:
    """Load Fed-Heart-Disease: 486 training and 254 test rows of four hospitals, not normalised.

    As FLamby does: slope, ca and thal are dropped, and so are rows with a missing value; cp and restecg are
    one-hot without their first level and stand last. The split is read from `flamby_split.csv`. UCI Heart
    Disease (Janosi, Steinbrunn, Pfisterer and Detrano 1988), CC BY 4.0. Raises DataError.
    """
    raw = {name: read_lines("heart_disease", f"processed.{name}.data") for name in HOSPITALS}
    found: dict[tuple[str, str], list[tuple[list[float], int]]] = {}
    split = read_rows("heart_disease", "flamby_split.csv", columns=("center", "line", "set", "label"))
    for number, entry in enumerate(split, 1):
        try:
            line = raw[entry["center"]][int(entry["line"]) - 1]
            features, label = _patient(line)
            stated = int(entry["label"])
        except (KeyError, IndexError, ValueError):
            raise DataError(f"flamby_split.csv, row {number}: does not fit the hospital's file") from None
        if label != stated:
            raise DataError(f"flamby_split.csv, row {number}, column label: is not the hospital's file's")
        found.setdefault((entry["set"], entry["center"]), []).append((features, label))
    wanted = {(which, name) for which in ("train", "test") for name in HOSPITALS}
    if set(found) != wanted:
        raise DataError("flamby_split.csv: must have training and test rows of all hospitals, nothing else")
    train, test = ({name: _table(found[which, name]) for name in HOSPITALS} for which in ("train", "test"))
    for name in HOSPITALS:
        HEART_SCHEMA.check(train[name].features, f"{name}, training rows")
        HEART_SCHEMA.check(test[name].features, f"{name}, test rows")
    return HeartDisease(train, test)


def _patient(line: str) -> tuple[list[float], int]:
    """Turn one raw line into features and label. Raises ValueError, IndexError."""
    fields = line.strip().split(",")
    features = [float(fields[i]) for i in _PLAIN]
    for i, (_, levels) in _LEVELS.items():
        level = levels.index(int(float(fields[i])))
        features += [float(level == other) for other in range(1, len(levels))]
    return features, int(float(fields[_ANSWER]) != 0)


def _table(rows: list[tuple[list[float], int]]) -> Table:
    return Table(
        np.array([features for features, _ in rows]), np.array([label for _, label in rows], np.int64)
    )
