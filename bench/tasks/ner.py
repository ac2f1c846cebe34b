"""CoNLL-2003 named entities: fifty blocks of documents as clients, a linear tagger on hashed features.

Each client trains one epoch from the round's parameters; the server adds momentum. Central reference: the
same features and SGD with averaging over the pooled sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table as View
from sklearn.linear_model import SGDClassifier

from bench.tasks.harness import Outcome, Setting, TaskResult, fit_alone, result, run, some_absent
from bench.tasks.ner_data import TAGS, Sentences, blocks, encode
from bench.tasks.ner_learner import SentenceLearner
from bench.tasks.ner_metrics import ner_metrics
from fedcore.data import conll2003
from fedcore.data.sets.conll import Document
from fedcore.learner import Metrics
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.strategies import FedAvgM

CLIENTS, ROUNDS = 50, 40
ALWAYS_O = 0.8253  # token accuracy of no entity at all
SHOWN = ("accuracy", "macro_f1", "span_f1")


def rows_of(train: Sequence[Document], clients: int, buckets: int) -> dict[str, Sentences]:
    """Tokens by client: runs of whole documents."""
    return {f"client-{i:02d}": encode(part, buckets) for i, part in enumerate(blocks(train, clients))}


def setting(rows: dict[str, Sentences], test: Sentences, buckets: int, rounds: int) -> Setting:
    """Ten bits, a clip that no update reaches, one client dropping out in every round."""
    learner = SentenceLearner(buckets=buckets, rate=0.3, epochs=1)

    def evaluate(model: RunState) -> Metrics:
        return learner.evaluate(model.parameters, test)

    return Setting(
        name="ner",
        metric="accuracy",
        rows=rows,
        schema=None,
        learner=learner,
        plan=TrainingPlan(
            rounds=rounds, clients=len(rows), weight_cap=max(map(len, rows.values())), clip=8.0, bits=10
        ),
        strategy=FedAvgM(server_rate=1.0, momentum=0.9),
        evaluate=evaluate,
        classes=TAGS,
        absent=some_absent(list(rows), rounds, 0, 1),
    )


def central(train: Sentences, test: Sentences, epochs: int = 8) -> Metrics:
    """One-against-the-rest logistic regression by averaged SGD over all sentences."""
    model = SGDClassifier(
        loss="log_loss", alpha=1e-6, average=True, max_iter=epochs, tol=None, random_state=0
    )
    model.fit(train.features, train.labels)
    return ner_metrics(test.labels, model.predict(test.features), test.sentences)


def one_size(
    bits: int, rounds: int, show: Callable[[str], None]
) -> tuple[Setting, Outcome, Metrics, list[Metrics]]:
    """Train with 2^bits buckets; returns setting, outcome, central reference, some clients alone."""
    buckets = 2**bits
    data = conll2003()
    train, test = data.train, encode([s for d in data.testb for s in d], buckets)
    rows = rows_of(train, CLIENTS, buckets)
    one = setting(rows, test, buckets, rounds)
    outcome = run(one, show)
    reference = central(encode([s for d in train for s in d], buckets), test, 1 if rounds < ROUNDS else 8)
    alone = [
        one.learner.evaluate(fit_alone(one.learner, part, 8, 0), test) for part in list(rows.values())[::10]
    ]
    return one, outcome, reference, alone


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    view = View(title=f"CoNLL-2003 testb, {CLIENTS} clients, one drops out in every round")
    for column in ("training", *SHOWN):
        view.add_column(column)
    view.add_row("always O", f"{ALWAYS_O:.4f}", "", "0")
    details, found = {}, []

    def show(text: str) -> None:
        console.print(text, highlight=False)

    for bits in (14,) if quick else (14, 18):
        one, outcome, reference, alone = one_size(bits, 2 if quick else ROUNDS, show)
        mean = {name: float(np.mean([metrics[name] for metrics in alone])) for name in SHOWN}
        for name, metrics in (
            (f"2^{bits}, five clients alone, mean", mean),
            (f"2^{bits}, federated, real numbers", outcome.plain),
            (f"2^{bits}, federated, secure", outcome.secure),
            (f"2^{bits}, central", reference),
        ):
            view.add_row(name, *(f"{metrics[key]:.4f}" for key in SHOWN))
            details[name] = {key: metrics[key] for key in SHOWN}
        found.append(result(one, outcome, local=mean["accuracy"], pooled=reference["accuracy"]))
        details[f"2^{bits}, federated, secure"]["bytes_up"] = found[-1].bytes_per_client_round
    console.print(view)
    last = found[0]
    return TaskResult(
        **{
            **{name: getattr(last, name) for name in TaskResult.__slots__},
            "seconds": sum(one.seconds for one in found),
            "max_difference": max(one.max_difference for one in found),
            "details": details,
        }
    )
