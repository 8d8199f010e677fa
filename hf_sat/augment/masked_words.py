"""Words masked in texts, and what a masked language model reads into the gaps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .draws import Draws
from .locks import as_units, found_spans
from .models import tokens_of
from .replacement import in_case_of
from .words import is_plain, split_words


class MaskedText:
    """One text with some words masked.

    Args:
        text: the text.
        draws: of this text.
    """

    def __init__(self, text: str, draws: Draws):
        self.words, self.gaps = split_words(text)
        self.original, self.draws = text, draws
        self.places: list[int] = []
        self.masked: list[str] = []

    def mask(self, rate: float, pattern: Any, mask_token: str) -> None:
        spans, flags = found_spans(pattern, self.original), None
        if spans:
            self.words, self.gaps, flags = as_units(self.words, self.gaps, spans)
        free = [at for at in range(len(self.words)) if not (flags and flags[at])]
        plain = [at for at in free if is_plain(self.words[at])]
        count = min(self.draws.count(rate * len(free)), len(plain))
        if mask_token in self.original:
            count = 0  # its gaps could not be told from ours
        self.places = [plain[at] for at in self.draws.sample(len(plain), count)]
        self.masked = [self.words[at] for at in self.places]
        for at in self.places:
            self.words[at] = mask_token

    def fill(self, gaps: Tensor, spelled: list[str], top_k: int) -> None:
        """Log-probabilities of the gaps that were read, (n, V): the first n places; the others get their word back."""
        for number, (at, word) in enumerate(zip(self.places, self.masked)):
            self.words[at] = word
            if number < len(gaps):
                self.words[at] = in_case_of(word, self._drawn(gaps[number], word, spelled, top_k))

    def _drawn(self, scores: Tensor, word: str, spelled: list[str], top_k: int) -> str:
        best = scores.topk(min(top_k + 1, int(scores.isfinite().sum())))
        options = [(spelled[at], score) for at, score in zip(best.indices.tolist(), best.values.tolist())]
        options = [(option, score) for option, score in options if option.lower() != word.lower()][:top_k]
        if not options:
            return word
        weights = torch.tensor([score for _, score in options], dtype=torch.float64).softmax(0).cumsum(0)
        return options[int((weights < self.draws.below(2**32) / 2**32).sum().clamp_max(len(options) - 1))][0]

    def text(self) -> str:
        return "".join(piece for pair in zip(self.gaps, [*self.words, ""]) for piece in pair)


@torch.no_grad()
def read_gaps(model: PreTrainedModel, tokenizer: Any, texts: list[str], allowed: Tensor) -> list[Tensor]:
    """For each text the scores of the whole words in its gaps, (n, V) on the CPU; -inf for other tokens."""
    tokens = tokens_of(model, tokenizer, texts)
    at_gaps = tokens["input_ids"] == tokenizer.mask_token_id
    scores = model(**tokens).logits[at_gaps].float().log_softmax(-1).masked_fill(~allowed.to(model.device), -torch.inf)
    return list(scores.cpu().split(at_gaps.sum(1).tolist()))


def whole_words(tokenizer: Any, model: PreTrainedModel) -> tuple[Tensor, list[str]]:
    """Which tokens are whole words of letters, (V,), and how each token is spelled."""
    vocabulary = tokenizer.get_vocab()
    size = model.get_output_embeddings().out_features
    allowed, spelled = torch.zeros(size, dtype=torch.bool), [""] * size
    # Byte-level and SentencePiece vocabularies mark what begins a word, WordPiece what does not.
    mark = next((mark for mark in "Ġ▁" if any(token.startswith(mark) for token in vocabulary)), "")
    special = set(tokenizer.all_special_ids)
    for token, number in vocabulary.items():
        spelled[number] = token[len(mark) :]
        allowed[number] = token.startswith(mark) and spelled[number].isalpha() and number not in special
    return allowed, spelled
