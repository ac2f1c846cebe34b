"""CoNLL-2003 English named entities: documents of sentences of tagged words."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.data.sets.folder import read_lines
from fedcore.errors import DataError

CONLL_TAGS = ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")
_NUMBERS = {tag: i for i, tag in enumerate(CONLL_TAGS)}


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, their part-of-speech tags and their labels (positions in CONLL_TAGS), equally many, not none."""

    words: tuple[str, ...]
    pos: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.words)


Document = tuple[Sentence, ...]  # a news story: the natural client of this set


@dataclass(frozen=True, slots=True)
class Conll2003:
    """The three parts of the shared task, documents in their order."""

    train: tuple[Document, ...]
    testa: tuple[Document, ...]  # for development
    testb: tuple[Document, ...]  # for the final figures


def conll2003() -> Conll2003:
    """Load the English set in IOB2 (Tjong Kim Sang and De Meulder 2003). Raises DataError.

    The text is from Reuters' RCV1 and must not be passed on.
    """
    return Conll2003(*(_documents(f"{part}.iob2.txt.gz") for part in ("train", "testa", "testb")))


def _documents(name: str) -> tuple[Document, ...]:
    """Read `word POS chunk tag` lines; an empty line ends a sentence, -DOCSTART- separates documents."""
    documents: list[list[Sentence]] = [[]]  # the files have -DOCSTART- at their end, not at the start
    tokens: list[tuple[str, str, int]] = []
    for number, line in enumerate([*read_lines("conll2003", name), ""], 1):
        fields = line.split(" ") if line else []
        if (not fields or fields[0] == "-DOCSTART-") and tokens:
            words, pos, labels = zip(*tokens, strict=True)
            documents[-1].append(Sentence(words, pos, labels))
            tokens = []
        if not fields:
            continue
        if len(fields) != 4 or fields[3] not in _NUMBERS:
            raise DataError(f"{name}, line {number}: must be word, POS, chunk and one of {list(CONLL_TAGS)}")
        if fields[0] == "-DOCSTART-":
            documents.append([])
        else:
            tokens.append((fields[0], fields[1], _NUMBERS[fields[3]]))
    return tuple(tuple(document) for document in documents if document)
