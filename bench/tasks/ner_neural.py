"""CoNLL-2003 named entities by a neural tagger with letters and document means, ten blocks as clients.

No pretrained vectors; settings were chosen on testa, figures are of testb.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import Setting, TaskResult, result, run, some_absent
from bench.tasks.ner import ALWAYS_O, SHOWN
from bench.tasks.ner_data import TAGS
from bench.tasks.ner_text import Texts, encode_texts
from bench.tasks.ner_torch import TextLearner
from fedcore.data import conll2003
from fedcore.data.sets.conll import Document
from fedcore.learner import Metrics
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.strategies import FedAvgM

CLIENTS, ROUNDS, RATE = 10, 32, 6e-3
CENTRAL_EPOCHS, CENTRAL_RATE = 12, 2e-3


def runs(train: Sequence[Document], clients: int) -> list[list[Document]]:
    """Give each client a run of whole documents with about equally many tokens."""
    sizes = [sum(len(sentence.words) for sentence in document) for document in train]
    out: list[list[Document]] = [[] for _ in range(clients)]
    before = 0
    for document, size in zip(train, sizes, strict=True):
        out[min(int((before + size / 2) * clients / sum(sizes)), clients - 1)].append(document)
        before += size
    return out


def setting(rows: dict[str, Texts], test: Texts, rounds: int) -> Setting:
    """Twelve bits; the local rate falls linearly to a twentieth; a client is lost in every fourth round."""
    learner = TextLearner(rate=RATE)

    def evaluate(model: RunState) -> Metrics:
        return learner.evaluate(model.parameters, test)

    return Setting(
        name="ner-neural",
        metric="accuracy",
        rows=rows,
        schema=None,
        learner=learner,
        plan=TrainingPlan(
            rounds=rounds,
            clients=len(rows),
            weight_cap=max(map(len, rows.values())),
            clip=1.0,
            bits=12,
            final_rate=0.05,
        ),
        strategy=FedAvgM(server_rate=1.0, momentum=0.5),
        evaluate=evaluate,
        classes=TAGS,
        absent=some_absent(list(rows), rounds, 0, 1, every=4),
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
    rows = {f"client-{i}": encode_texts(part) for i, part in enumerate(runs(train, clients))}
    one = setting(rows, test, 1 if quick else ROUNDS)
    outcome = run(one, lambda text: console.print(text, highlight=False))
    pooled = central(train, test, 1 if quick else CENTRAL_EPOCHS)
    view = View(title=f"CoNLL-2003 testb, neural tagger, {clients} clients")
    for column in ("training", *SHOWN):
        view.add_column(column)
    view.add_row("always O", f"{ALWAYS_O:.4f}", "", "0")
    details = {}
    for name, metrics in (
        ("neural, federated, real numbers", outcome.plain),
        ("neural, federated, secure", outcome.secure),
        ("neural, central", pooled),
    ):
        view.add_row(name, *(f"{metrics[key]:.4f}" for key in SHOWN))
        details[name] = {key: metrics[key] for key in SHOWN}
    console.print(view)
    return result(one, outcome, local=None, pooled=pooled["accuracy"], **details)
