"""Documents as arrays for the neural tagger: hashed words, letters, shapes, and which words repeat."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.tasks.ner_data import Document, Sentence, shape

WORDS = 1 << 13  # buckets of lower-cased words; 0 is an unknown word or no word
SHAPES = 256  # buckets of shapes
LETTERS = 128  # codes of characters; 0 is no character, the last is any other
LONGEST = 16  # characters of a word: the first and last 8 of a longer one


@dataclass(frozen=True, slots=True, eq=False)
class TextDocument:
    """One document; its sentences are rows that end in padding.

    tokens   words in all
    words    (sentences, longest) int64 buckets; shapes and tags likewise, tag -1 is padding
    capitals (sentences, longest) int64: 1, or 2 where the sentence has no small letter
    letters  (forms, LONGEST) int64: the distinct words of the document
    forms    (sentences, longest) int64: rows of `letters`
    repeats  (sentences, longest) int64: equal where the lower-cased words are equal; 0 is padding
    """

    tokens: int
    words: NDArray[np.int64]
    shapes: NDArray[np.int64]
    capitals: NDArray[np.int64]
    letters: NDArray[np.int64]
    forms: NDArray[np.int64]
    repeats: NDArray[np.int64]
    tags: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Documents of one client; len() counts their tokens."""

    documents: tuple[TextDocument, ...]

    def __len__(self) -> int:
        return sum(document.tokens for document in self.documents)


def encode_texts(documents: Sequence[Document]) -> Texts:
    """Encode each document by itself: no vocabulary is shared, so no client tells another its words."""
    return Texts(tuple(encode_document(document) for document in documents))


def encode_document(document: Document) -> TextDocument:
    """Encode one document of at least one sentence."""
    forms: dict[str, int] = {"": 0}
    repeats: dict[str, int] = {}
    for word in itertools.chain.from_iterable(s.words for s in document):
        forms.setdefault(word, len(forms))
        repeats.setdefault(word.lower(), len(repeats) + 1)
    widest = max(len(s.words) for s in document)

    def rows(of: list[list[int]], padding: int = 0) -> NDArray[np.int64]:
        return np.array([row + [padding] * (widest - len(row)) for row in of], np.int64)

    return TextDocument(
        tokens=sum(len(s.words) for s in document),
        words=rows([[_bucket(w.lower(), WORDS) for w in s.words] for s in document]),
        shapes=rows([[_bucket(shape(w), SHAPES) for w in s.words] for s in document]),
        capitals=rows([[_capitals(s)] * len(s.words) for s in document]),
        letters=np.array([_letters(word) for word in forms], np.int64),
        forms=rows([[forms[w] for w in s.words] for s in document]),
        repeats=rows([[repeats[w.lower()] for w in s.words] for s in document]),
        tags=rows([list(s.tags) for s in document], padding=-1),
    )


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
