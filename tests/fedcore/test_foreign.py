"""Learners and strategies that a file names: found beside it, or installed; what fails is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.errors import SettingError
from fedcore.examples import own_learner
from fedcore.experiments.config import load_experiment
from fedcore.experiments.run import run_experiment
from fedcore.rounds.agreement import Agreement, Run
from fedcore.strategies import FedAvg
from fedcore.strategies.named import read_strategy, strategy_json
from secagg import IdentityKey

SCHEMA = Schema((Column("age", 0, 120),), ("no", "yes"))
MEMBERS = frozenset(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(5))

STRATEGY = """
from dataclasses import dataclass
from fedcore import Strategy, UpdateKind

@dataclass(frozen=True, slots=True, kw_only=True)
class Half(Strategy):
    share: float = 0.5

    def step(self, parameters, update, state):
        return parameters + self.share * update.of(UpdateKind.DELTA), state

class Idle(Strategy):
    pass
"""

LEARNER = """
import numpy as np
from fedcore.learners import LocalSGD, SoftmaxRegression

def make(features, classes, seed, rate=0.1):
    return LocalSGD(model=SoftmaxRegression(features, classes), rate=rate)

class Other:
    def __init__(self, ask):
        pass
"""

EXPERIMENT = """
compare = ["plain"]
[data]
name = "breast_cancer"
partition = "iid"
clients = 4
[plan]
rounds = 2
[learner]
kind = "our_learner:make"
options = { rate = 0.05 }
[strategy]
name = "our_strategy:Half"
options = { share = 0.25 }
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for name in ("our_strategy", "our_learner", "our_factory", "our_parts", "our_whole", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "our_strategy.py").write_text(STRATEGY)
    (tmp_path / "our_learner.py").write_text(LEARNER)
    (tmp_path / "training.toml").write_text(EXPERIMENT)
    return tmp_path


def agreed(folder: Path, text: str) -> Agreement:
    (folder / "agreement.toml").write_text(text)
    return Agreement.load(folder / "agreement.toml")


def test_an_experiment_runs_the_learner_and_the_strategy_that_lie_beside_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path_factory.mktemp("out")
    monkeypatch.chdir(out)  # elsewhere: the folder of the file counts
    experiment = load_experiment(folder / "training.toml")
    (outcome,) = run_experiment(experiment, out)
    assert outcome.failure == ""
    assert outcome.metrics["accuracy"] > 0.5


def test_options_of_code_beside_an_agreement_are_in_its_digest(folder: Path) -> None:
    text = '[learner]\nkind = "our_learner:make"\n[strategy]\nname = "our_strategy:Half"\n'
    text += "options = {{ share = {} }}"
    runs = [Run.of(agreed(folder, text.format(share)), SCHEMA, MEMBERS) for share in (0.5, 0.5, 0.25)]
    assert runs[0].digest == runs[1].digest != runs[2].digest
    assert runs[2].stands_on()["strategy"]["name"] == "our_strategy:Half"
    assert runs[2].stands_on()["strategy"]["share"] == 0.25


def test_code_is_agreed_on_and_so_is_what_it_hides_from_its_fields(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "our_strategy.py").write_text(STRATEGY.replace("self.share *", "-self.share *"))
    factory = STRATEGY + "\ndef hidden(ask, boost=1.0):\n    made = Half(ask=ask)\n    return made\n"
    (folder / "our_factory.py").write_text(factory)
    text = '[strategy]\nname = "{}"\noptions = {{ {} }}'
    agreements = [
        agreed(folder, text.format("our_strategy:Half", "")),
        agreed(other, text.format("our_strategy:Half", "")),
    ]
    digests = [
        Run.of(agreed(folder, text.format("our_factory:hidden", f"boost = {boost}")), SCHEMA, MEMBERS).digest
        for boost in (1.0, 50.0)
    ]
    assert digests[0] != digests[1]
    runs = []
    for one, where in zip(agreements, (folder, other), strict=True):
        agreed(where, text.format("our_strategy:Half", ""))
        runs.append(Run.of(one, SCHEMA, MEMBERS))
    assert runs[0].digest != runs[1].digest


def test_what_the_run_says_is_no_option(folder: Path) -> None:
    with pytest.raises(SettingError, match=r"strategy\.options\.ask: is said by weighting"):
        agreed(folder, '[strategy]\nname = "our_strategy:Half"\noptions = { ask = 1 }')
    learner = agreed(folder, '[learner]\nkind = "our_learner:make"\noptions = { seed = 5 }')
    with pytest.raises(SettingError, match=r"learner\.options\.seed: is given by the schema and the run"):
        learner.make_learner(SCHEMA)


def test_a_module_may_import_another_that_lies_beside_it(folder: Path) -> None:
    (folder / "our_parts.py").write_text("SHARE = 0.75\n")
    text = "from our_parts import SHARE\n" + STRATEGY.replace("= 0.5", "= SHARE")
    (folder / "our_whole.py").write_text(text)
    made = agreed(folder, '[strategy]\nname = "our_whole:Half"').make_strategy(5)
    assert getattr(made, "share", 0) == 0.75
    assert str(folder) not in sys.path


def test_files_of_the_same_name_in_two_folders_are_two_modules(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "our_strategy.py").write_text(STRATEGY.replace("= 0.5", "= 0.125"))
    text = '[strategy]\nname = "our_strategy:Half"'
    first, second = (agreed(one, text).make_strategy(5) for one in (folder, other))
    assert (getattr(first, "share", 0), getattr(second, "share", 0)) == (0.5, 0.125)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("our_strategy:Idle", "our_strategy:Idle makes a Idle, which has no step"),
        ("our_strategy:Other", "there is no our_strategy:Other: AttributeError"),
        ("our_learner:make", "our_learner:make cannot be made: TypeError"),
        ("our_learner:Other", "our_learner:Other makes a Other, which is no fedcore.Strategy"),
        ("builtins:dict", "builtins:dict must be defined in a module that uses fedcore"),
        ("logging:basicConfig", "logging:basicConfig must be defined in a module that uses fedcore"),
        ("fedcore.data.sample:write_sample", "must be defined in a module that uses fedcore"),
        ("tests.fedcore.test_foreign:run_experiment", "must be defined in a module that uses fedcore"),
        ("not_there:Half", "there is no not_there:Half: ModuleNotFoundError: No module named 'not_there'"),
        ("broken:Half", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_code_that_makes_no_strategy_is_refused_with_what_it_said(
    folder: Path, name: str, fault: str
) -> None:
    (folder / "broken.py").write_text("1 / 0")
    with pytest.raises(SettingError, match=f"^strategy.name: .*{fault}"):
        agreed(folder, f'[strategy]\nname = "{name}"')
    assert "broken" not in sys.modules


def test_a_file_with_the_name_of_a_module_in_use_is_refused(folder: Path) -> None:
    (folder / "numpy.py").write_text(STRATEGY)
    with pytest.raises(
        SettingError, match=r"strategy.name: .*numpy.py has the name of a module .*numpy: rename"
    ):
        agreed(folder, '[strategy]\nname = "numpy:Half"')
    assert sys.modules["numpy"] is np


def test_options_of_ones_own_stand_in_a_table_of_their_own(folder: Path) -> None:
    with pytest.raises(SettingError, match=r"strategy\.share: is not known, strategy has options"):
        agreed(folder, '[strategy]\nname = "our_strategy:Half"\nshare = 0.5')


def test_a_strategy_whose_fields_are_no_settings_cannot_be_agreed_on() -> None:
    with pytest.raises(SettingError, match="WithArray must have settings only as its fields"):
        strategy_json(WithArray())


class WithArray(FedAvg):
    """Of a kind that no file can say."""

    def __init__(self) -> None:
        FedAvg.__init__(self)
        object.__setattr__(self, "server_rate", object())


def test_what_stays_at_a_site_is_a_setting_of_the_strategy() -> None:
    asks = read_strategy({"personal": ["head.*"], "shared": ["*"]}, clients=4, private=False).asks()
    assert (asks.personal, asks.shared) == (("head.*",), ("*",))


def test_a_fault_of_the_table_is_told_before_its_code_is_made() -> None:
    values: dict[str, Any] = {"name": 3}
    with pytest.raises(SettingError, match=r"strategy.name: must be a text, is 3"):
        read_strategy(values, clients=4, private=False)


def test_a_learner_gets_those_facts_that_it_takes(tmp_path: Path) -> None:
    source = Path(own_learner.__file__).read_text(encoding="utf-8")
    (tmp_path / "our_learner.py").write_text(source)
    text = '[learner]\nkind = "our_learner:PoissonRegression"\noptions = { steps = 3 }'
    made = agreed(tmp_path, text).make_learner(replace(SCHEMA, classes=(), target=Column("y", 0, 9)))
    assert (made.features, made.steps) == (1, 3)  # type: ignore[attr-defined]
