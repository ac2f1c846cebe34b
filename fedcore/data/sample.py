"""A sample set to start from: five hospitals that never were, a schema, an agreement, and a page to follow.

Rows are drawn from a seed, and have what real files have: gaps, other spellings, patients with several stays.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.resources
from pathlib import Path

import numpy as np

from fedcore.errors import DataError

SITES = {"hospital-1": 420, "hospital-2": 260, "hospital-3": 190, "hospital-4": 330, "hospital-5": 150}
NEW_ROWS = 40
_TEXTS = ("schema.toml", "agreement.toml", "README.md")
_HEADER = ("patient", "age", "sex", "ward", "admitted", "systolic", "creatinine", "smoker", "readmitted")
_WARDS = ("cardiology", "surgery", "internal")


def write_sample(folder: Path, seed: int = 2026) -> None:
    """Write the set into a folder that is new or empty. Raises DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder}: is not empty, nothing was written")
        texts = importlib.resources.files("fedcore.data").joinpath("sample_texts")
        for name in _TEXTS:
            (folder / name).write_text(texts.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
        rng = np.random.default_rng(seed)
        for number, (name, rows) in enumerate(SITES.items()):
            _write(folder / f"{name}.csv", _HEADER, _rows(rng, rows, number))
        new = [row[:-1] for row in _rows(rng, NEW_ROWS, 1)]
        _write(folder / "new-patients.csv", _HEADER[:-1], new)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _rows(rng: np.random.Generator, count: int, site: int) -> list[tuple[str, ...]]:
    """Draw stays of a hospital; each has its own mix of patients, and its own way to write."""
    patients = rng.integers(0, round(0.8 * count), count)  # some come again
    ages = np.clip(rng.normal(58 + 4 * site, 16, count), 18, 99).astype(int)
    male = rng.random(count) < 0.5
    wards = rng.choice(len(_WARDS), count, p=np.roll([0.5, 0.3, 0.2], site))
    days = rng.integers(0, 900, count)
    systolic = np.clip(rng.normal(128 + ages / 8, 18, count), 70, 240).round()
    creatinine = np.clip(rng.lognormal(0.05 + ages / 400, 0.35, count), 0.3, 9.0).round(2)
    smoker = rng.random(count) < 0.25
    score = (ages - 62) / 9 + (systolic - 136) / 12 + 2.2 * (creatinine - 1.2) + 1.6 * smoker
    score += np.array([1.4, -1.2, 0.0])[wards] - 0.8
    again = rng.random(count) < 1 / (1 + np.exp(-score))
    first = dt.date(2023, 1, 1)
    sexes = ("F", "M") if site != 3 else ("female", "male")
    out: list[tuple[str, ...]] = []
    for i in range(count):
        gap = rng.random(3) < (0.03, 0.12, 0.05)
        out.append(
            (
                f"P{site + 1}{patients[i]:04d}",
                "" if gap[0] else str(ages[i]),
                sexes[int(male[i])],
                _WARDS[wards[i]],
                (first + dt.timedelta(days=int(days[i]))).strftime("%d.%m.%Y"),
                "NA" if gap[1] else f"{systolic[i]:.0f}",
                f"{creatinine[i]:.2f}",
                "" if gap[2] else ("yes" if smoker[i] else "no"),
                "yes" if again[i] else "no",
            )
        )
    return out
