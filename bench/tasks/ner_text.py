"""Documents as arrays for the neural tagger: hashed words, letters, shapes, and which words repeat."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.tasks.ner_data import shape
from fedcore.data.sets.conll import Document, Sentence

WORDS = 1 << 13  # buckets of lower-cased words; 0 is an unknown word or no word
SHAPES = 256  # buckets of shapes
LETTERS = 128  # codes of characters; 0 is no character, the last is any other
LONGEST = 16  # characters of a word: the first and last 8 of a longer one


@dataclass(frozen=True, slots=True, eq=False)
class TextDocument:
    """One document; arrays are (tokens,) int64 if nothing else is said.

    Sentences of more than half the longest stand first, then the others: two grids with little padding.

    words      buckets; shapes likewise
    capitals   1, or 2 where the sentence has no small letter
    letters    (forms, LONGEST) int64: the distinct words of the document; forms: rows of it
    repeats    equal where the lower-cased words are equal, from 0
    tags       indices in TAGS
    sentences  number of the sentence in the document
    grids      for each kind of sentence: how many, longest, and where in (sentences * longest) its tokens go
    """

    words: NDArray[np.int64]
    shapes: NDArray[np.int64]
    capitals: NDArray[np.int64]
    letters: NDArray[np.int64]
    forms: NDArray[np.int64]
    repeats: NDArray[np.int64]
    tags: NDArray[np.int64]
    sentences: NDArray[np.int64]
    grids: tuple[tuple[int, int, NDArray[np.int64]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Documents of one client; len() counts their tokens."""

    documents: tuple[TextDocument, ...]

    def __len__(self) -> int:
        return sum(len(document.words) for document in self.documents)


def encode_texts(documents: Sequence[Document]) -> Texts:
    """Encode each document by itself: no vocabulary is shared, so no client tells another its words."""
    return Texts(tuple(encode_document(document) for document in documents))


def encode_document(document: Document) -> TextDocument:
    """Encode one document of at least one sentence."""
    half = max(len(s.words) for s in document) / 2
    kinds = [[i for i, s in enumerate(document) if (len(s.words) > half) == long] for long in (True, False)]
    order = [i for kind in kinds for i in kind]
    words = [word for i in order for word in document[i].words]
    forms = {word: row for row, word in enumerate(dict.fromkeys(words))}
    repeats = {word: number for number, word in enumerate(dict.fromkeys(w.lower() for w in words))}

    def column(values: Iterable[int]) -> NDArray[np.int64]:
        return np.fromiter(values, np.int64)

    return TextDocument(
        words=column(_bucket(w.lower(), WORDS) for w in words),
        shapes=column(_bucket(shape(w), SHAPES) for w in words),
        capitals=column(_capitals(document[i]) for i in order for _ in document[i].words),
        letters=np.array([_letters(word) for word in forms], np.int64),
        forms=column(forms[w] for w in words),
        repeats=column(repeats[w.lower()] for w in words),
        tags=column(tag for i in order for tag in document[i].labels),
        sentences=column(i for i in order for _ in document[i].words),
        grids=tuple(_grid([len(document[i].words) for i in kind]) for kind in kinds if kind),
    )


def _grid(lengths: list[int]) -> tuple[int, int, NDArray[np.int64]]:
    longest = max(lengths)
    return len(lengths), longest, np.concatenate([i * longest + np.arange(n) for i, n in enumerate(lengths)])


def _capitals(sentence: Sentence) -> int:
    return 1 if any(c.islower() for word in sentence.words for c in word) else 2


@functools.cache
def _letters(word: str) -> tuple[int, ...]:
    codes = [min(1 + ord(c), LETTERS - 1) for c in word]
    if len(codes) > LONGEST:
        codes = codes[: LONGEST // 2] + codes[-LONGEST // 2 :]
    return tuple(codes + [0] * (LONGEST - len(codes)))


@functools.cache
def _bucket(text: str, buckets: int) -> int:
    """Return 1 .. buckets - 1, the same in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (buckets - 1)
