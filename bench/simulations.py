"""The rows of the simulated federation: fedcore by every kind of sum, pfl beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.peers import missing, pfl_simulation
from bench.simulation import CLASSES, Sum, Users, Work, load, numpy_learner, train
from fedcore.learner import Learner
from fedcore.privacy import Mechanism, calibrate

Row = dict[str, Any]
SUMS: tuple[Sum, ...] = ("real", "quantized", "secure")
PRIVATE_SUMS: tuple[Sum, ...] = ("central Gaussian", "Skellam", "Skellam, secure")


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
        "open": _table(open_, users, SUMS, pfl=skipped is None),
        "private": _table(private, users, PRIVATE_SUMS, pfl=skipped is None),
        "full_batches": None if skipped else _full_batches(users, 2 if tiny else 5, open_),
    }


def _table(work: Work, users: Users, sums: Sequence[Sum], *, pfl: bool) -> dict[str, Any]:
    """Return what is trained and the rows; `times`: over pfl where it is there."""
    rows = [_ours(work, users, how, numpy_learner(work, users), f"fedcore, {how}") for how in sums]
    if missing("torch") is None:
        rows.append(_ours(work, users, sums[0], _torch_learner(work, users), f"fedcore, {sums[0]}, PyTorch"))
    if pfl:
        theirs = pfl_simulation.train(work, users)
        rows.append(
            {
                "name": pfl_simulation.NAME,
                "seconds": theirs.seconds,
                "accuracy": theirs.accuracy(users),
                "noise": theirs.noise,
            }
        )
        rows = [{**row, "times": row["seconds"] / theirs.seconds} for row in rows]
    about = {name: getattr(work, name) for name in ("rounds", "batch", "epochs", "rate")}
    if work.private:
        about |= {name: getattr(work, name) for name in ("epsilon", "delta", "norm")}
    return {**about, "cohort": work.cohort or len(users.tables), "rows": rows}


def _ours(work: Work, users: Users, how: Sum, learner: Learner[Any], name: str) -> Row:
    model, seconds = train(work, users, how, learner)
    accuracy = learner.evaluate(model.parameters, users.test)["accuracy"]
    noise = _gaussian(work) if how == "central Gaussian" else None
    return {"name": name, "seconds": seconds, "accuracy": accuracy, "noise": noise}


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

    from fedcore.learners.torch_learner import TorchLearner

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
    model, _ = train(same, users, "real", numpy_learner(same, users))
    theirs = pfl_simulation.train(same, users)
    pairs = (("coefficients", theirs.coefficients), ("intercepts", theirs.intercepts))
    return {
        "rounds": rounds,
        "difference": max(float(np.abs(model.parameters[name] - value).max()) for name, value in pairs),
        "moved": max(float(np.abs(model.parameters[name]).max()) for name, _ in pairs),
    }
