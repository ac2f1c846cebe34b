"""A tagger of words and letters in PyTorch, trained by federated averaging; no pretrained vectors.

Letters by convolution and words by a bidirectional LSTM as in Ma and Hovy, ACL 2016, section 2, without
its CRF and its pretrained vectors; beside it the mean over all places of the document where the word
stands, because a name is often plain in one of them (Chieu and Ng, COLING 2002).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.tasks.ner_data import TAGS
from bench.tasks.ner_metrics import ner_metrics
from bench.tasks.ner_text import LETTERS, SHAPES, WORDS, TextDocument, Texts
from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters
from secagg import ParameterError

_SHAPE, _CAPITALS = 16, 4  # sizes of small embeddings
_LARGEST_GRADIENT = 5.0  # norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Widths of the layers."""

    word: int = 64
    letter: int = 32
    filters: int = 96
    hidden: int = 128


class Tagger(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Scores of the tags of every token of a document."""

    def __init__(self, sizes: Sizes, dropout: float, forget: float) -> None:
        super().__init__()
        self.word = nn.Embedding(WORDS, sizes.word)
        self.letter = nn.Embedding(LETTERS, sizes.letter)
        self.shape = nn.Embedding(SHAPES, _SHAPE)
        self.capitals = nn.Embedding(3, _CAPITALS)
        self.filters = nn.Conv1d(sizes.letter, sizes.filters, 3, padding=1)
        inputs = sizes.word + sizes.filters + _SHAPE + _CAPITALS
        self.lstm = nn.LSTM(inputs, sizes.hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(4 * sizes.hidden, len(TAGS))
        self.dropout, self.forget = nn.Dropout(dropout), forget
        nn.init.normal_(self.word.weight, 0, 0.3)

    def forward(self, document: TextDocument) -> torch.Tensor:
        """Return (tokens, tags)."""
        words = torch.from_numpy(document.words)
        if self.training:  # a forgotten word must be told by its letters
            words = words * (torch.rand(words.shape) >= self.forget)
        parts = [
            self.word(words),
            self._spelling(torch.from_numpy(document.letters))[torch.from_numpy(document.forms)],
            self.shape(torch.from_numpy(document.shapes)),
            self.capitals(torch.from_numpy(document.capitals)),
        ]
        states = self.dropout(self._sentences(self.dropout(torch.cat(parts, 1)), document))
        means = _means(states, torch.from_numpy(document.repeats))
        return self.out(torch.cat([states, means], 1))

    def _sentences(self, inputs: torch.Tensor, document: TextDocument) -> torch.Tensor:
        """Return (tokens, 2 * hidden): what the LSTM makes of each sentence by itself.

        Padding follows the words, so the backward half has run over zeros before it meets the last word.
        """
        out, first = [], 0
        for sentences, longest, places in document.grids:
            where = torch.from_numpy(places)
            grid = inputs.new_zeros(sentences * longest, inputs.shape[1])
            grid = grid.index_copy(0, where, inputs[first : first + len(places)])
            states, _ = self.lstm(grid.view(sentences, longest, -1))
            out.append(states.flatten(0, 1)[where])
            first += len(places)
        return torch.cat(out)

    def _spelling(self, letters: torch.Tensor) -> torch.Tensor:
        """Return (forms, filters): the largest answer of each filter along the word."""
        answers = self.filters(self.letter(letters).transpose(1, 2))
        return torch.relu(answers.masked_fill((letters == 0).unsqueeze(1), -1e4).amax(2))


def _means(states: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    """Replace each state by the mean over the tokens with the same number."""
    count = torch.bincount(repeats)
    sums = states.new_zeros(len(count), states.shape[1]).index_add(0, repeats, states)
    return (sums / count[:, None])[repeats]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLearner:
    """Local epochs of Adam, a document a step, its moments from zero in every round.

    epochs   passes over the documents in a round
    rate     learning rate; `at_rate` gives the learner of another round
    dropout  of inputs and states; forget: chance that a word's bucket is hidden
    seed     of the initial weights: every site must use the same
    raises   ParameterError
    """

    epochs: int = 1
    rate: float = 2e-3
    dropout: float = 0.5
    forget: float = 0.2
    sizes: Sizes = Sizes()
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ParameterError(f"rate: must be positive and finite, is {self.rate}")
        if self.epochs < 1:
            raise ParameterError(f"epochs: must be at least 1, is {self.epochs}")
        for name in ("dropout", "forget"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{name}: must be in [0, 1), is {getattr(self, name)}")

    def at_rate(self, rate: float) -> TextLearner:
        """Return the same learner with another learning rate."""
        return dataclasses.replace(self, rate=rate)

    def initial(self) -> Parameters:
        """Random, from `seed`."""
        return _parameters(self._net())

    def _net(self, parameters: Parameters | None = None) -> Tagger:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = Tagger(self.sizes, self.dropout, self.forget)
        if parameters is not None:
            net.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in parameters.items()})
        return net

    def fit(self, parameters: Parameters, rows: Texts, seed: int) -> Parameters:
        """Train. Raises TaskError when there are no documents."""
        if not rows.documents:
            raise TaskError("rows: there are none to train on")
        net = self._net(parameters)
        net.train()
        adam = torch.optim.Adam(net.parameters(), lr=self.rate, fused=True)
        loss_of = nn.CrossEntropyLoss()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(self.epochs):
                for i in torch.randperm(len(rows.documents)).tolist():
                    document = rows.documents[i]
                    adam.zero_grad()
                    loss = loss_of(net(document), torch.from_numpy(document.tags))
                    loss.backward()
                    nn.utils.clip_grad_norm_(net.parameters(), _LARGEST_GRADIENT)
                    adam.step()
        return _parameters(net)

    def guesses(self, parameters: Parameters, rows: Texts) -> list[NDArray[np.int64]]:
        """Return the tags of each document, (tokens,), in the order of its arrays."""
        net = self._net(parameters)
        net.eval()
        with torch.no_grad():
            return [net(document).argmax(1).numpy() for document in rows.documents]

    def evaluate(self, parameters: Parameters, rows: Texts) -> Metrics:
        """Return those of `ner_metrics`."""
        none = [np.zeros(0, np.int64)]
        labels = [document.tags for document in rows.documents]
        # No sentence of one document gets the number of the last one of another beside it.
        numbers = [2 * document.sentences + i % 2 for i, document in enumerate(rows.documents)]
        parts = (labels, self.guesses(parameters, rows), numbers)
        return ner_metrics(*(np.concatenate(none + part) for part in parts))


def _parameters(net: Tagger) -> Parameters:
    return {name: value.numpy().astype(np.float64) for name, value in net.state_dict().items()}
