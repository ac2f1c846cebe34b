"""CoNLL-2003 named entities: fifty blocks of documents as clients, a linear tagger on hashed features.

Each client trains one epoch from the round's parameters; the server adds momentum. Central reference: the
same features and SGD with averaging over the pooled sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table as View

from bench.tasks.ner_data import TAGS, Sentences, blocks, encode, sentences_of
from bench.tasks.ner_learner import SentenceLearner
from bench.tasks.ner_metrics import ner_metrics
from bench.tasks.result import Show, TaskResult, result, run
from fedcore.data import conll2003
from fedcore.data.sets.conll import Document
from fedcore.evaluation import baselines
from fedcore.evaluation.baselines import Mode, Result, Trial
from fedcore.experiments.dropout import absences
from fedcore.experiments.tables import DropoutTable
from fedcore.learner import Metrics
from fedcore.rounds.plan import TrainingPlan
from fedcore.strategies import FedAvgM

CLIENTS, ROUNDS = 50, 40
ALWAYS_O = 0.8253  # token accuracy of no entity at all
SHOWN = ("accuracy", "macro_f1", "span_f1")


def rows_of(train: Sequence[Document], clients: int, buckets: int) -> dict[str, Sentences]:
    """Tokens by client: runs of whole documents."""
    return {
        f"client-{i:02d}": encode(sentences_of(part), buckets)
        for i, part in enumerate(blocks(train, clients))
    }


def trial_of(rows: dict[str, Sentences], test: Sentences, buckets: int, rounds: int) -> Trial:
    """Ten bits, a clip that no update reaches, one client dropping out in every round."""
    cap = max(map(len, rows.values()))
    plan = TrainingPlan(rounds=rounds, clients=len(rows), weight_cap=cap, clip=8.0, bits=10)
    return Trial(
        rows=rows,
        held_out=(test,),
        learner=SentenceLearner(buckets=buckets, rate=0.3, epochs=1),
        plan=plan,
        strategy=FedAvgM(server_rate=1.0, momentum=0.9),
        classes=TAGS,
        absent=absences(DropoutTable(per_round=1), plan, sorted(rows)),
    )


def central(train: Sentences, test: Sentences, epochs: int = 8) -> Metrics:
    """One-against-the-rest logistic regression by averaged SGD over all sentences."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss", alpha=1e-6, average=True, max_iter=epochs, tol=None, random_state=0
    )
    model.fit(train.features, train.labels)
    return ner_metrics(test.labels, model.predict(test.features), test.sentences)


def one_size(bits: int, rounds: int, show: Show) -> tuple[Trial, dict[Mode, Result], Metrics, Metrics]:
    """Train with 2^bits buckets; returns trial, comparison, central reference, five clients alone."""
    buckets = 2**bits
    data = conll2003()
    train, test = data.train, encode(sentences_of(data.testb), buckets)
    rows = rows_of(train, CLIENTS, buckets)
    trial = trial_of(rows, test, buckets, rounds)
    found = run("ner", "accuracy", trial, show)
    reference = central(encode(sentences_of(train), buckets), test, 1 if rounds < ROUNDS else 8)
    five = replace(trial, rows=dict(list(rows.items())[::10]), plan=replace(trial.plan, rounds=8))
    return trial, found, reference, baselines.run(five, Mode.LOCAL).metrics


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
        trial, outcome, reference, alone = one_size(bits, 2 if quick else ROUNDS, show)
        for name, metrics in (
            (f"2^{bits}, five clients alone, mean", alone),
            (f"2^{bits}, federated, real numbers", outcome[Mode.PLAIN].metrics),
            (f"2^{bits}, federated, secure", outcome[Mode.SECURE].metrics),
            (f"2^{bits}, central", reference),
        ):
            view.add_row(name, *(f"{metrics[key]:.4f}" for key in SHOWN))
            details[name] = {key: metrics[key] for key in SHOWN}
        ends = {"local": alone["accuracy"], "pooled": reference["accuracy"]}
        found.append(result("ner", "accuracy", trial, outcome, **ends))
        details[f"2^{bits}, federated, secure"]["bytes_up"] = found[-1].bytes_per_client_round
    console.print(view)
    return replace(
        found[0],
        seconds=sum(one.seconds for one in found),
        max_difference=max(one.max_difference for one in found),
        details=details,
    )
