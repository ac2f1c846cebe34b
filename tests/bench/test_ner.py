"""CoNLL-2003 as a federated task: parsing, features, metrics by hand-made cases, both learners."""

import os
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.tasks.ner_data import (
    TAGS,
    Sentences,
    blocks,
    encode,
    sentences_of,
    shape,
    token_features,
)
from bench.tasks.ner_learner import SentenceLearner
from bench.tasks.ner_metrics import entity_report, ner_metrics, spans, tag_f1
from bench.tasks.ner_text import Texts, encode_texts
from fedcore.data import conll2003
from fedcore.data.sets.conll import Document, Sentence
from fedcore.errors import DataError, TaskError
from fedcore.learner import Learner, Parameters
from secagg import ParameterError
from tests.lazy import Lazy

torched: Any = Lazy("bench.tasks.ner_torch")

LINEAR = SentenceLearner(buckets=1 << 10, epochs=2)
ROME = [
    180,
    2679,
    2720,
    3108,
    4444,
    4730,
    4894,
    7808,
    7865,
    9752,
    9928,
    10402,
    11094,
    11444,
    11756,
    12706,
    13079,
    13903,
    14822,
    15326,
    15664,
    15974,
]  # columns

needs_data = pytest.mark.skipif(
    not os.environ.get("SECAGG_DATA"), reason="SECAGG_DATA does not name the folder of the real data sets"
)


@cache
def neural() -> Any:
    sizes = torched.Sizes(word=8, letter=8, filters=8, hidden=8)
    return torched.TextLearner(epochs=4, rate=0.01, sizes=sizes)


def sentence(words: tuple[str, ...], labels: tuple[int, ...]) -> Sentence:
    return Sentence(words, ("NN",) * len(words), labels)


def tags(*names: str) -> np.ndarray:
    return np.array([TAGS.index(name) for name in names], np.int64)


def real(split: str) -> tuple[Document, ...]:
    found: tuple[Document, ...] = getattr(conll2003(), split)
    return found


def made_up(documents: int) -> list[Document]:
    """Names are told by their endings and by the word before them."""
    rng = np.random.default_rng(documents)
    out: list[Document] = []
    for _ in range(documents):
        person, place = (f"{rng.choice(list('ABCDEFG'))}{rng.integers(99)}" for _ in range(2))
        text = ("Mr", f"{person}son", "of", f"{place}burg", "spoke")
        out.append((sentence(text, (0, 7, 0, 1, 0)), sentence(("he", "spoke"), (0, 0))))
    return out


# Clients


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60), clients=st.integers(-1, 12))
@settings(deadline=None)
def test_blocks_keep_every_sentence_in_order_and_nobody_goes_without(
    lengths: list[int], clients: int
) -> None:
    documents = [(sentence((str(i),) * n, (0,) * n),) for i, n in enumerate(lengths)]
    try:
        given_out = blocks(documents, clients)
    except DataError as error:
        assert clients < 1 or max(lengths) * clients > sum(lengths)
        assert str(error).startswith("clients: ")  # noqa: PT017 - both ends are allowed
        return
    assert len(given_out) == clients
    assert all(given_out)
    assert [document for part in given_out for document in part] == documents


# Features


def test_features_are_those_of_the_recipe() -> None:
    first, last = token_features(("U.S.", "Open"))
    assert first == [
        *("bias", "w-2=<s>", "w-1=<s>", "w0=u.s.", "w1=open", "w2=<s>"),
        *("s-2=<s>", "s-1=<s>", "s0=X.X.", "s1=Xxxx", "s2=<s>"),
        *("p=u", "p=u.", "p=u.s", "p=u.s.", "e=.", "e=s.", "e=.s.", "e=u.s."),
        *("b=<s> u.s.", "c=u.s. open", "first"),
    ]
    assert not {"first", "capitals"} & set(last)
    (shout,) = token_features(("ROME",))
    assert shout[-1] == "capitals"


@pytest.mark.parametrize(
    ("word", "form"), [("Rome", "Xxxx"), ("INTERNATIONAL", "XXXX"), ("1996-08-22", "dddd-dd-dd"), ("", "")]
)
def test_shapes_stop_at_four_alike(word: str, form: str) -> None:
    assert shape(word) == form


def test_hashed_columns_are_the_same_on_every_machine() -> None:
    rows = encode([sentence(("Rome",), (1,))], 1 << 14)
    assert rows.features.indices.tolist() == ROME
    assert rows.features.data.tolist() == [1.0] * len(ROME)
    assert rows.labels.tolist() == [1]


def test_take_keeps_rows_labels_and_sentences_together() -> None:
    texts = (
        (("Ann", "visits", "New", "York", "."), (7, 0, 1, 2, 0)),
        (("ROME",), (1,)),
        (("Rome", "wins"), (1, 0)),
    )
    rows = encode([sentence(words, labels) for words, labels in texts], 64)
    part = rows.take(np.array([0, 5, 7]))
    assert len(part) == 3
    assert part.sentences.tolist() == [0, 1, 2]
    assert part.labels.tolist() == tags("B-PER", "B-LOC", "O").tolist()
    assert (part.features != rows.features[[0, 5, 7]]).nnz == 0


# Metrics


@pytest.mark.parametrize(
    ("names", "sentences", "expected"),
    [
        ("O O", "0 0", []),
        ("B-LOC I-LOC O", "0 0 0", [(0, 2, "LOC")]),
        ("B-LOC B-LOC", "0 0", [(0, 1, "LOC"), (1, 2, "LOC")]),
        ("B-PER I-LOC", "0 0", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("O I-ORG I-ORG", "0 0 0", [(1, 3, "ORG")]),
        ("I-PER O I-PER", "0 0 0", [(0, 1, "PER"), (2, 3, "PER")]),
        ("B-LOC I-LOC", "0 1", [(0, 1, "LOC"), (1, 2, "LOC")]),
        ("O B-MISC", "3 3", [(1, 2, "MISC")]),
    ],
)
def test_spans_are_those_of_conlleval(
    names: str, sentences: str, expected: list[tuple[int, int, str]]
) -> None:
    numbers = np.array(sentences.split(), np.int64)
    assert spans(tags(*names.split()), numbers) == expected


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=40),
)
def test_spans_cover_exactly_what_is_not_outside(tokens: list[tuple[int, bool]]) -> None:
    labels = np.array([t for t, _ in tokens], np.int64)
    sentences = np.cumsum([b for _, b in tokens]).astype(np.int64)
    covered = [i for first, last, _ in spans(labels, sentences) for i in range(first, last)]
    assert covered == np.flatnonzero(labels).tolist()


def test_a_span_counts_when_bounds_and_type_are_right() -> None:
    labels = tags("B-PER", "I-PER", "O", "B-LOC", "B-ORG", "O")
    guesses = tags("B-PER", "O", "O", "B-LOC", "B-LOC", "B-ORG")
    report = entity_report(labels, guesses, np.zeros(6, np.int64))
    assert (report["LOC"].precision, report["LOC"].recall, report["LOC"].support) == (0.5, 1.0, 1)
    assert (report["PER"].f1, report["ORG"].f1) == (0.0, 0.0)
    assert (report["all"].precision, report["all"].recall) == (0.25, 1 / 3)
    assert report["all"].f1 == pytest.approx(2 / 7)
    by_tag = tag_f1(labels, guesses)
    assert by_tag[TAGS.index("B-LOC")] == pytest.approx(2 / 3)
    assert by_tag[TAGS.index("I-MISC")] == 0
    metrics = ner_metrics(labels, guesses, np.zeros(6, np.int64))
    assert metrics["accuracy"] == 0.5
    assert metrics["macro_f1_entities"] == pytest.approx(by_tag[1:].sum() / 8)


def test_without_tokens_there_are_no_metrics() -> None:
    none = np.zeros(0, np.int64)
    assert np.isnan(list(ner_metrics(none, none, none).values())).all()


# Learners


def averaged(fitted: list[tuple[int, Parameters]]) -> Parameters:
    total = sum(n for n, _ in fitted)
    return {k: np.sum([n * p[k] for n, p in fitted], axis=0) / total for k in fitted[0][1]}


def same(left: Parameters, right: Parameters) -> bool:
    return all(np.array_equal(left[k], right[k]) for k in left)


def test_averaged_linear_taggers_learn_what_none_was_told_alone() -> None:
    clients = [encode([s for d in made_up(n) for s in d], LINEAR.buckets) for n in (5, 6, 7)]
    test = encode([s for d in made_up(40) for s in d], LINEAR.buckets)
    now = LINEAR.initial()
    for turn in range(5):
        now = averaged([(len(rows), LINEAR.fit(now, rows, turn)) for rows in clients])
    metrics = LINEAR.evaluate(now, test)
    assert metrics["accuracy"] == metrics["span_f1"] == 1


def test_linear_training_moves_only_columns_in_use_and_leaves_its_start_alone() -> None:
    rows = encode(made_up(1)[0], LINEAR.buckets)
    start = LINEAR.initial()
    fitted = LINEAR.fit(start, rows, 1)
    moved = np.flatnonzero(fitted["coefficients"].any(axis=1))
    assert set(moved) == set(rows.features.indices)
    assert same(start, LINEAR.initial())
    assert same(fitted, LINEAR.fit(start, rows, 1))
    assert not same(fitted, LINEAR.fit(start, rows, 2))


def test_averaged_neural_taggers_learn() -> None:
    learner: Learner[Texts] = neural()
    clients = [encode_texts(made_up(n)) for n in (9, 10)]
    test = encode_texts(made_up(20))
    now = learner.initial()
    before = learner.evaluate(now, test)["accuracy"]
    for turn in range(4):
        now = averaged([(len(rows), learner.fit(now, rows, turn)) for rows in clients])
    metrics = learner.evaluate(now, test)
    assert metrics["accuracy"] > max(before, 0.95)
    assert metrics["span_f1"] > 0.9


def test_neural_training_is_repeatable_and_leaves_its_start_alone() -> None:
    rows, start = encode_texts(made_up(2)), neural().initial()
    fitted = neural().fit(start, rows, 1)
    assert same(start, neural().initial())
    assert same(fitted, neural().fit(start, rows, 1))
    assert not same(fitted, neural().fit(start, rows, 2))


def test_tokens_of_a_document_are_encoded_once_each_whatever_the_lengths() -> None:
    document = (sentence(("a",), (0,)), sentence(("Ann",) * 40, (7,) * 40), sentence(("x" * 40, "A"), (0, 1)))
    (text,) = encode_texts([document]).documents
    assert text.sentences.tolist() == [1] * 40 + [0, 2, 2]
    assert text.tags.tolist() == [7] * 40 + [0, 0, 1]
    assert text.repeats.tolist() == [0] * 40 + [1, 2, 1]
    assert text.forms.tolist() == [0] * 40 + [1, 2, 3]
    assert text.letters.shape == (4, 16)
    assert [grid[:2] for grid in text.grids] == [(1, 40), (2, 2)]
    assert text.grids[1][2].tolist() == [0, 2, 3]
    assert np.isnan(neural().evaluate(neural().initial(), encode_texts([]))["accuracy"])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SentenceLearner(buckets=0), "buckets"),
        (lambda: SentenceLearner(buckets=1, epochs=0), "epochs"),
        (lambda: LINEAR.at_rate(-1), "rate"),
        (lambda: neural().at_rate(float("nan")), "rate"),
        (lambda: torched.TextLearner(forget=1), "forget"),
        (lambda: torched.TextLearner(epochs=0), "epochs"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make: object, field: str) -> None:
    assert callable(make)
    with pytest.raises(ParameterError, match=f"{field}: must be"):
        make()


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TaskError, match="1024 columns are needed, got 64"):
        LINEAR.fit(LINEAR.initial(), encode(made_up(1)[0], 64), 0)
    with pytest.raises(TaskError, match="there are none"):
        LINEAR.fit(LINEAR.initial(), encode([], LINEAR.buckets), 0)
    with pytest.raises(TaskError, match="there are none"):
        neural().fit(neural().initial(), encode_texts([]), 0)


# The real texts


@needs_data
def test_real_texts_are_the_ones_of_the_published_counts() -> None:
    documents = real("testb")
    labels = np.array([t for d in documents for s in d for t in s.labels], np.int64)
    supports = dict(zip(TAGS, np.bincount(labels).tolist(), strict=True))
    counts = (38323, 1668, 257, 702, 216, 1661, 835, 1617, 1156)
    assert supports == dict(zip(TAGS, counts, strict=True))
    assert (len(documents), sum(map(len, documents)), len(labels)) == (231, 3453, 46435)
    sentences = np.repeat(np.arange(3453), [len(s.words) for d in documents for s in d])
    assert ner_metrics(labels, np.zeros_like(labels), sentences)["accuracy"] == pytest.approx(
        0.8253, abs=5e-5
    )
    report = entity_report(labels, labels, sentences)
    assert (report["all"].f1, report["all"].support, report["ORG"].support) == (1, 5648, 1661)


@needs_data
def test_a_few_rounds_on_a_tenth_of_the_real_texts_beat_no_entities_at_all() -> None:
    learner: Learner[Sentences] = SentenceLearner(buckets=1 << 14)
    clients = [encode(sentences_of(part), 1 << 14) for part in blocks(real("train")[:90], 4)]
    test = encode(sentences_of(real("testa")[:40]), 1 << 14)
    now = learner.initial()
    for turn in range(3):
        now = averaged([(len(rows), learner.fit(now, rows, turn)) for rows in clients])
    metrics = learner.evaluate(now, test)
    outside = float((test.labels == 0).mean())
    assert metrics["accuracy"] > outside + 0.05
    assert metrics["span_f1"] > 0.3
