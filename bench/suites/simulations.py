"""The rows of the simulated federation: fedcore by every kind of sum, pfl beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.peers import missing, pfl_simulation
from bench.suites.simulation import CLASSES, Sum, Trained, Users, Work, load, numpy_learner, train
from fedcore.learner import Learner
from fedcore.privacy.accounting import Mechanism, calibrate

Row = dict[str, Any]
SUMS: tuple[Sum, ...] = ("real", "quantized", "secure")
PRIVATE_SUMS: tuple[Sum, ...] = ("central Gaussian", "Skellam", "Skellam, secure")
_PROTOCOL_ROUNDS = 4  # all parties in one process are slow; the rest would be the same


def everything(*, tiny: bool) -> dict[str, Any]:
    """Train all rows in this process, one after the other."""
    users = load(tiny=tiny)
    skipped = pfl_simulation.available()
    open_ = Work(rounds=2 if tiny else 40, cohort=6 if tiny else 60)
    private = replace(open_, cohort=None, private=True, rounds=2 if tiny else 20)
    return {
        "source": users.source,
        "users": len(users.tables),
        "parameters": (users.features + 1) * len(CLASSES),
        "libraries": None if skipped else pfl_simulation.library(),
        "skipped": {} if skipped is None else {pfl_simulation.NAME: skipped},
        "open": _table(open_, users, SUMS, pfl=skipped is None, seeds=1),
        "private": _table(private, users, PRIVATE_SUMS, pfl=skipped is None, seeds=2 if tiny else 5),
        "full_batches": None if skipped else _full_batches(users, 2 if tiny else 5, open_),
    }


def _table(work: Work, users: Users, sums: Sequence[Sum], *, pfl: bool, seeds: int) -> dict[str, Any]:
    """Return what is trained and the rows; accuracies by seed; `times`: over pfl where it is there."""
    in_clear, quantized, secure = sums
    learner = numpy_learner(work, users)
    rows = [_row(work, users, in_clear, learner, seeds), _row(work, users, quantized, learner, seeds)]
    rows.append(rows[-1] | _protocol(work, users, secure, train(work, users, quantized, learner)))
    if missing("torch") is None:
        modules = _torch_learner(work, users)
        row = _row(work, users, in_clear, modules, seeds)
        rows.append({**row, "name": f"{row['name']}, PyTorch"})
    if pfl:
        rows.append(_theirs(work, users, seeds))
        rows = [{**row, "times": row["seconds"] / rows[-1]["seconds"]} for row in rows]
    about = {name: getattr(work, name) for name in ("rounds", "batch", "epochs", "rate")}
    if work.private:
        about |= {name: getattr(work, name) for name in ("epsilon", "delta", "norm")}
    return {**about, "seeds": seeds, "cohort": work.cohort or len(users.tables), "rows": rows}


def _row(work: Work, users: Users, how: Sum, learner: Learner[Any], seeds: int) -> Row:
    trained = [train(replace(work, seed=seed), users, how, learner) for seed in range(seeds)]
    found = [learner.evaluate(one.parameters[-1], users.test)["accuracy"] for one in trained]
    noise = _gaussian(work) if how == "central Gaussian" else None
    return _figures(f"fedcore, {how}", [one.seconds for one in trained], found, noise)


def _figures(name: str, seconds: list[float], accuracies: list[float], noise: float | None) -> Row:
    return {
        "name": name,
        "seconds": statistics.median(seconds),
        "accuracy": statistics.mean(accuracies),
        "accuracies": accuracies,
        "noise": noise,
    }


def _protocol(work: Work, users: Users, how: Sum, plain: Trained) -> Row:
    """A few rounds through the protocol: they must end in the parameters of the sum in the clear."""
    secure = train(work, users, how, numpy_learner(work, users), at_most=_PROTOCOL_ROUNDS)
    for found, expected in zip(secure.parameters, plain.parameters, strict=False):
        if any(not np.array_equal(found[name], expected[name]) for name in expected):
            raise RuntimeError(f"{how}: the protocol gave other parameters than the sum in the clear")
    return {"name": f"fedcore, {how}", "seconds": secure.seconds, "rounds_run": len(secure.parameters)}


def _theirs(work: Work, users: Users, seeds: int) -> Row:
    trained = [pfl_simulation.train(replace(work, seed=seed), users) for seed in range(seeds)]
    found = [one.accuracy(users) for one in trained]
    return _figures(pfl_simulation.NAME, [one.seconds for one in trained], found, trained[0].noise)


def _gaussian(work: Work) -> float:
    """Standard deviation of our central Gaussian over the norm."""
    variance = calibrate(
        Mechanism.GAUSSIAN,
        epsilon=work.epsilon,
        delta=work.delta,
        rounds=work.rounds,
        l2=1.0,
        l1=1.0,
        dimension=1,
        parties=1,
    )
    return float(np.sqrt(variance))


def _torch_learner(work: Work, users: Users) -> Learner[Any]:
    import torch

    from fedcore.learners.torch.learner import TorchLearner

    torch.set_num_threads(1)
    return TorchLearner(
        lambda: pfl_simulation.softmax_module(users.features),
        classes=len(CLASSES),
        rate=work.rate,
        epochs=work.epochs,
        batch_size=work.batch,
    )


def _full_batches(users: Users, rounds: int, work: Work) -> dict[str, float]:
    """Train without batches, where both do the same arithmetic: the largest difference of a parameter."""
    same = replace(work, rounds=rounds, batch=None, epochs=2)
    ours = train(same, users, "real", numpy_learner(same, users)).parameters[-1]
    theirs = pfl_simulation.train(same, users)
    pairs = (("coefficients", theirs.coefficients), ("intercepts", theirs.intercepts))
    return {
        "rounds": rounds,
        "difference": max(float(np.abs(ours[name] - value).max()) for name, value in pairs),
        "moved": max(float(np.abs(ours[name]).max()) for name, _ in pairs),
    }
