"""CoNLL-2003 named entities by a neural tagger with letters and document means, ten blocks as clients.

No pretrained vectors; settings were chosen on testa, figures are of testb.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as View

from bench.tasks.ner import ALWAYS_O, SHOWN
from bench.tasks.ner_data import TAGS, blocks
from bench.tasks.ner_text import Texts, encode_texts
from bench.tasks.ner_torch import TextLearner
from bench.tasks.result import TaskResult, result, run
from fedcore.data import conll2003
from fedcore.data.sets.conll import Document
from fedcore.evaluation.baselines import Mode, Trial
from fedcore.experiments.dropout import absences
from fedcore.experiments.tables import DropoutTable
from fedcore.learner import Metrics
from fedcore.rounds.plan import TrainingPlan
from fedcore.strategies import FedAvgM

CLIENTS, ROUNDS, RATE = 10, 32, 6e-3
CENTRAL_EPOCHS, CENTRAL_RATE = 12, 2e-3


def trial_of(rows: dict[str, Texts], test: Texts, rounds: int) -> Trial:
    """Twelve bits; the local rate falls linearly to a twentieth; a client is lost in every fourth round."""
    cap = max(map(len, rows.values()))
    plan = TrainingPlan(rounds=rounds, clients=len(rows), weight_cap=cap, clip=1.0, bits=12, final_rate=0.05)
    return Trial(
        rows=rows,
        held_out=(test,),
        learner=TextLearner(rate=RATE),
        plan=plan,
        strategy=FedAvgM(server_rate=1.0, momentum=0.5),
        classes=TAGS,
        absent=absences(DropoutTable(per_round=1, every=4), plan, sorted(rows)),
    )


def central(train: Sequence[Document], test: Texts, epochs: int) -> Metrics:
    """The same network on all documents, with a linear decay of the rate."""
    texts = encode_texts(train)
    learner = TextLearner(rate=CENTRAL_RATE)
    parameters = learner.initial()
    for epoch in range(epochs):
        rate = CENTRAL_RATE * max(1 - epoch / epochs, 0.05)
        parameters = learner.at_rate(rate).fit(parameters, texts, epoch)
    return learner.evaluate(parameters, test)


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table: some twenty minutes of one core."""
    data = conll2003()
    train, test = data.train, encode_texts(data.testb)
    if quick:
        train = train[:20]
    clients = 4 if quick else CLIENTS
    rows = {f"client-{i}": encode_texts(part) for i, part in enumerate(blocks(train, clients))}
    trial = trial_of(rows, test, 1 if quick else ROUNDS)
    outcome = run("ner-neural", "accuracy", trial, lambda text: console.print(text, highlight=False))
    pooled = central(train, test, 1 if quick else CENTRAL_EPOCHS)
    view = View(title=f"CoNLL-2003 testb, neural tagger, {clients} clients")
    for column in ("training", *SHOWN):
        view.add_column(column)
    view.add_row("always O", f"{ALWAYS_O:.4f}", "", "0")
    details = {}
    for name, metrics in (
        ("neural, federated, real numbers", outcome[Mode.PLAIN].metrics),
        ("neural, federated, secure", outcome[Mode.SECURE].metrics),
        ("neural, central", pooled),
    ):
        view.add_row(name, *(f"{metrics[key]:.4f}" for key in SHOWN))
        details[name] = {key: metrics[key] for key in SHOWN}
    console.print(view)
    return result(
        "ner-neural", "accuracy", trial, outcome, local=None, pooled=pooled["accuracy"], details=details
    )
