"""Low-rank factors and parameters by name, trained under secure aggregation: small uploads that learn."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore import Federation, PlainSum, SecureSum, Site, Table, TrainingPlan, flatten
from fedcore.data import digits, dirichlet, hold_out
from fedcore.learner import Parameters
from fedcore.learners import LocalSGD, LowRank, Perceptron
from fedcore.rounds.instructions import Asks
from fedcore.strategies import FedAvg

MODEL = Perceptron(64, 10, hidden=(32,))
ABSENT = {"train 2": frozenset({"client-1"})}


@pytest.fixture(scope="module")
def split() -> tuple[dict[str, Table], Table, Parameters]:
    """Rows of six sites, held-out rows, and a base that was trained on the digits 0 to 4 alone."""
    table = digits().table
    scaled = Table(table.features / 16 - 0.5, table.labels)
    train, test = hold_out(scaled, 0.3, 0)
    known = train.take(np.flatnonzero(train.labels < 5))
    base = LocalSGD(model=MODEL, epochs=5, rate=0.1).fit(MODEL.initial(), known, 0)
    return dirichlet(train.labels, 6, 1.0, 0, minimum_rows=20).tables(train), test, base


def run(
    kind: type[PlainSum | SecureSum], rows: dict[str, Table], learner: LocalSGD, ask: Asks
) -> tuple[Parameters, int]:
    """Train without a schema; returns the parameters, and the entries of an upload."""
    sites = {name: Site(name, part, None, learner, 0) for name, part in rows.items()}
    plan = TrainingPlan(rounds=6, clients=6, weight_cap=1000, clip=2.0, bits=12)
    entries: list[int] = []
    model = Federation(
        kind(sites, ABSENT),
        None,
        learner,
        plan,
        FedAvg(ask=ask),
        on_round=lambda record: entries.append(record.task.encoding.length),
        classes=tuple("0123456789"),
    ).run()
    return model.parameters, entries[0]


def test_low_rank_factors_learn_new_digits_with_a_fraction_of_the_upload(
    split: tuple[dict[str, Table], Table, Parameters],
) -> None:
    rows, test, base = split
    adapted = LowRank(model=MODEL, base=base, rank=4, alpha=4.0, names=("*.weights",), also=("*.biases",))
    learner = LocalSGD(model=adapted, epochs=3, batch_size=16, rate=0.1)
    plain, secure = (run(kind, rows, learner, Asks()) for kind in (PlainSum, SecureSum))
    assert flatten(plain[0]).tobytes() == flatten(secure[0]).tobytes()
    before = MODEL.evaluate(base, test)["accuracy"]
    after = MODEL.evaluate(adapted.merge(secure[0]), test)["accuracy"]
    assert before < 0.6
    assert after > before + 0.25
    assert secure[1] < 0.4 * flatten(base).size


def test_parameters_by_name_move_and_the_others_stay_bit_for_bit(
    split: tuple[dict[str, Table], Table, Parameters],
) -> None:
    rows, _test, _base = split
    learner = LocalSGD(model=MODEL, epochs=2, batch_size=16, rate=0.1)
    after, entries = run(SecureSum, rows, learner, Asks(shared=("layer1.*",)))
    initial = MODEL.initial()
    assert entries == 32 * 10 + 10 + 1
    for name, array in after.items():
        same = array.tobytes() == initial[name].tobytes()
        assert same == name.startswith("layer0."), name
