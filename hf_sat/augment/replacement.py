"""Operations that replace words by others from a table, one for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from .draws import Draws
from .sequence import Sequence

Table = Mapping[str, Items[str]]


def in_case_of(original: str, word: str) -> str:
    """`word` with the capitals of `original`.

    Example:
        >>> in_case_of("Movie", "film"), in_case_of("MOVIE", "film")
        ('Film', 'FILM')
    """
    if original.islower():
        return word
    if original.isupper() and len(original) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if original[0].isupper() else word


def article_fits(article: str, word: str) -> bool:
    """Whether "a" or "an" stands well before a word; other words before it stand well before any.

    Example:
        >>> article_fits("an", "episode"), article_fits("a", "episode"), article_fits("the", "episode")
        (True, False, True)
    """
    article = article.lower()
    if article not in ("a", "an"):
        return True
    if word.startswith(("u", "eu", "one", "hour", "hon", "heir")):
        return False  # the letter does not tell the sound
    return (article == "an") == word.startswith(("a", "e", "i", "o"))


@dataclass
class Replacement:
    """Words that a table knows are replaced by one of what it gives for them.

    A word with a capital is taken for a name and left alone, unless it is the first or all words are in capitals.

    Args:
        rate: expected share of words replaced; fewer where the table knows fewer.
        load: makes the table, from lower-case words to lower-case options; called late, and again where unpickled.
        fits: pass over options that the text has already, or before which its "a" or "an" would be wrong.
    """

    rate: float
    load: Callable[[], Table]
    fits: bool = False
    table: Table | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "table": None}

    def __call__(self, text: Sequence, draws: Draws) -> None:
        count = draws.count(self.rate * len(text.free))
        if not count:
            return
        table = self.table = self.table or self.load()
        words = text.words
        known = _known(text, table)
        for turn in draws.order(len(known)):
            at = known[turn]
            options = table[words[at].lower()]
            if self.fits:
                before = words[at - 1] if at else ""
                options = [option for option in options if option not in words and article_fits(before, option)]
            if options:
                words[at] = in_case_of(words[at], draws.choice(options))
                count -= 1
                if not count:
                    return


def _known(text: Sequence, table: Table) -> list[int]:
    """Positions of the words that the table knows and that are no names."""
    words = text.words
    if not words:
        return []
    if words[0].isupper() and words[-1].isupper() and all(map(str.isupper, words)):
        words = [word.lower() for word in words]
    known = [at for at, word in enumerate(words) if word in table]
    if not words[0].islower() and words[0].lower() in table:
        known.insert(0, 0)
    return known if text.locked is None else [at for at in known if not text.locked[at]]
