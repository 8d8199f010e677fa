"""Sentences that change places."""

from __future__ import annotations

from dataclasses import dataclass

from .draws import Draws
from .operations import chosen_places, in_a_cycle
from .sequence import Sequence, cut_gap
from .words import is_word


@dataclass
class SentenceShuffle:
    """Sentences change places; the rate is the expected share of sentences that do. Those with locked words stay."""

    rate: float

    def __call__(self, text: Sequence, draws: Draws) -> None:
        spans = text.sentences()
        free = [number for number, span in enumerate(spans) if not any(map(is_word, text.locked_words(*span)))]
        chosen = [free[at] for at in chosen_places(len(free), self.rate, draws)]
        if not chosen:
            return
        order = list(range(len(spans)))
        for place, source in zip(chosen, in_a_cycle(chosen, draws)):
            order[place] = source
        if text.gaps is not None:
            text.gaps = _gaps_of(text.gaps, spans, order)
        words = [at for sentence in order for at in range(*spans[sentence])]
        text.words, text.origins = [text.words[at] for at in words], [text.origins[at] for at in words]
        if text.locked is not None:
            text.locked = [text.locked[at] for at in words]
            text.renew_free()


def _gaps_of(gaps: list[str], spans: list[tuple[int, int]], order: list[int]) -> list[str]:
    """What opens and ends a sentence goes with it, the space between sentences stays."""
    cuts = [cut_gap(gaps[end]) for _, end in spans[:-1]]
    first, last = gaps[0].lstrip(), gaps[-1].rstrip()
    openings = [first, *(opening for *_, opening in cuts)]
    marks = [*(mark for mark, *_ in cuts), last]
    spaces = [*(space for _, space, _ in cuts), gaps[-1][len(last) :]]
    moved = [gaps[0][: len(gaps[0]) - len(first)] + openings[order[0]]]
    for place, sentence in enumerate(order):
        start, end = spans[sentence]
        following = openings[order[place + 1]] if place + 1 < len(order) else ""
        moved += [*gaps[start + 1 : end], marks[sentence] + spaces[place] + following]
    return moved
