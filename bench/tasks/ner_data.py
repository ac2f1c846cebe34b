"""Tokens of CoNLL-2003 documents as rows of hashed binary features; blocks of documents as clients."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fedcore.data.sets.conll import CONLL_TAGS, Document, Sentence
from fedcore.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TAGS = CONLL_TAGS
_WINDOW = (-2, -1, 0, 1, 2)
_AFFIX = 4  # longest prefix and suffix


@dataclass(frozen=True, slots=True, eq=False)
class Sentences:
    """Tokens of whole sentences as rows.

    features   scipy CSR of 0 and 1, (tokens, buckets), sorted columns
    labels     (tokens,) int64, indices in TAGS
    sentences  (tokens,) int64, ascending; equal within a sentence
    """

    features: csr_matrix
    labels: NDArray[np.int64]
    sentences: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return these tokens."""
        return type(self)(self.features[rows], self.labels[rows], self.sentences[rows])


def blocks(documents: Sequence[Document], clients: int) -> list[list[Document]]:
    """Give each client a run of whole documents, in file order.

    The runs hold about equally many tokens: a document goes to the client on whose share its middle lies.
    Raises DataError when a client would get no document.
    """
    sizes = np.array([sum(len(s.words) for s in document) for document in documents])
    middles = np.cumsum(sizes) - sizes / 2
    owner = np.minimum(middles * clients // sizes.sum(), clients - 1).astype(np.int64)
    if clients < 1 or len(np.unique(owner)) != clients:
        raise DataError(f"clients: {len(documents)} documents do not give {clients} blocks")
    return [[documents[i] for i in np.flatnonzero(owner == client).tolist()] for client in range(clients)]


def sentences_of(documents: Sequence[Document]) -> list[Sentence]:
    """Return the sentences of documents, one after the other."""
    return [sentence for document in documents for sentence in document]


def encode(sentences: Sequence[Sentence], buckets: int) -> Sentences:
    """Hash the features of every token into `buckets` columns; two features in one bucket are one."""
    columns: list[int] = []
    ends = [0]
    for sentence in sentences:
        for features in token_features(sentence.words):
            row = sorted({_hash(feature) % buckets for feature in features})
            columns.extend(row)
            ends.append(len(columns))
    lengths = [len(sentence.words) for sentence in sentences]
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(
        (np.ones(len(columns)), np.array(columns, np.int32), np.array(ends, np.int32)),
        shape=(len(ends) - 1, buckets),
    )
    tags = np.fromiter(itertools.chain.from_iterable(s.labels for s in sentences), np.int64)
    return Sentences(matrix, tags, np.repeat(np.arange(len(lengths)), lengths))


def token_features(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the features of each word of a sentence, as strings.

    Lower-cased words and shapes within two places, prefixes and suffixes up to four letters, the two
    bigrams that hold the word, whether it opens the sentence, whether the sentence is all capitals.
    """
    pad = ["<s>"] * 2
    low = [*pad, *(word.lower() for word in words), *pad]
    forms = [*pad, *(shape(word) for word in words), *pad]
    capitals = not any(c.islower() for word in words for c in word)
    for i in range(len(words)):
        at = i + 2
        out = ["bias"]
        out += [f"w{d}={low[at + d]}" for d in _WINDOW]
        out += [f"s{d}={forms[at + d]}" for d in _WINDOW]
        longest = min(_AFFIX, len(low[at]))
        out += [f"p={low[at][:n]}" for n in range(1, longest + 1)]
        out += [f"e={low[at][-n:]}" for n in range(1, longest + 1)]
        out += [f"b={low[at - 1]} {low[at]}", f"c={low[at]} {low[at + 1]}"]
        if i == 0:
            out.append("first")
        if capitals:
            out.append("capitals")
        yield out


@functools.cache
def shape(word: str) -> str:
    """Write X for capitals, x for small letters, d for digits; at most four alike in a row."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    return "".join("".join(itertools.islice(run, _AFFIX)) for _, run in itertools.groupby(kinds))


@functools.cache
def _hash(feature: str) -> int:
    """Return 64 bits that are the same in every process; Python's hash() is not."""
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
