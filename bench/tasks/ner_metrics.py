"""Metrics of named-entity tags: by token, and by span as conlleval counts them.

Source: Tjong Kim Sang and De Meulder, CoNLL-2003: a span counts when its bounds and its type
are both right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.tasks.ner_data import TAGS
from fedcore.learner import Metrics

Span = tuple[int, int, str]  # first token, token after the last, type


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 of one kind of span, or of all of them; support: how many there are."""

    precision: float
    recall: float
    f1: float
    support: int


def spans(tags: NDArray[np.int64], sentences: NDArray[np.int64]) -> list[Span]:
    """Return the spans of IOB2 tags, in order; no span crosses the end of a sentence.

    tags, sentences  (tokens,): indices in TAGS, and numbers that are equal within a sentence
    A guesser may put I-X where no X is open: like conlleval, that opens one.
    """
    found: list[Span] = []
    first, kind = 0, ""
    breaks = np.diff(sentences, prepend=sentences[:1]) != 0
    for i, (tag, fresh) in enumerate(zip(tags.tolist(), breaks.tolist(), strict=True)):
        name = TAGS[tag]
        inside = name[0] == "I" and name[2:] == kind and not fresh
        if inside:
            continue
        if kind:
            found.append((first, i, kind))
        first, kind = i, name[2:]
    if kind:
        found.append((first, len(tags), kind))
    return found


def entity_report(
    labels: NDArray[np.int64], guesses: NDArray[np.int64], sentences: NDArray[np.int64]
) -> dict[str, Score]:
    """Score the guessed spans, by type and (under "all") together; 0 where nothing is there to divide by."""
    true, guessed = set(spans(labels, sentences)), set(spans(guesses, sentences))
    right, support, made = (Counter(s[2] for s in part) for part in (true & guessed, true, guessed))
    report = {kind: _score(right[kind], made[kind], support[kind]) for kind in sorted(support | made)}
    report["all"] = _score(right.total(), made.total(), support.total())
    return report


def _score(right: int, made: int, support: int) -> Score:
    precision = right / made if made else 0.0
    recall = right / support if support else 0.0
    return Score(precision, recall, 2 * right / (made + support) if made + support else 0.0, support)


def tag_f1(labels: NDArray[np.int64], guesses: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 of each tag of TAGS by token, (9,); 0 for a tag that never occurs."""
    both = np.bincount(labels, minlength=len(TAGS)) + np.bincount(guesses, minlength=len(TAGS))
    right = np.bincount(labels[labels == guesses], minlength=len(TAGS))
    return np.asarray(2 * right / np.maximum(both, 1))


def ner_metrics(
    labels: NDArray[np.int64], guesses: NDArray[np.int64], sentences: NDArray[np.int64]
) -> Metrics:
    """Token accuracy, macro F1 over the 9 tags and over the 8 without O, F1 of spans.

    labels, guesses, sentences  (tokens,) as in `spans`; without tokens all are NaN
    """
    if not len(labels):
        return dict.fromkeys(("accuracy", "macro_f1", "macro_f1_entities", "span_f1"), float("nan"))
    by_tag = tag_f1(labels, guesses)
    return {
        "accuracy": float((labels == guesses).mean()),
        "macro_f1": float(by_tag.mean()),
        "macro_f1_entities": float(by_tag[1:].mean()),  # TAGS[0] is O
        "span_f1": entity_report(labels, guesses, sentences)["all"].f1,
    }
