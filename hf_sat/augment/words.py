"""A text as words and what stands between them.

`gaps[0] + words[0] + gaps[1] + ... + words[-1] + gaps[-1]` is the text again, to the byte. A word is a run of letters,
marks and digits with its inner apostrophes and hyphens; a Chinese character or a kana; an emoji with all its parts; or
what must stay whole: an address, a number, a placeholder such as `{name}` or `[MASK]`. Thai, Lao and Khmer, which write
no spaces, give one word for each run.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

_URL_REST = r"[^\s<>\"]*[^\s<>\".,;:!?)\]}'\u2019…]"
URL = rf"(?:https?://|www\.){_URL_REST}"
# By their first sign: tags, {name} and {{ name }}, ${NAME}, [MASK], %(name)s.
_PLACEHOLDERS = {
    "<": r"/?[A-Za-z_][^<>\s]*/?>",
    r"\{": r"\{?\s?[\w.:-]+\s?\}?\}",
    r"\$": r"\{\{?\s?[\w.:-]+\s?\}?\}",
    r"\[": r"[A-Z][A-Z_]*\d*\]",
    "%": r"\(\w+\)[sdf]",
}
PLACEHOLDER = "|".join(first + rest for first, rest in _PLACEHOLDERS.items())

_CJK = "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
_CJK += "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_CJK_MARKS = "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
_FLAG = "\U0001f1e6-\U0001f1ff"
_EMOJI = "\u231a\u231b\u23e9-\u23f3\u25fd\u25fe\u2600-\u27bf\u2b1b\u2b1c\u2b50\u2b55\U0001f000-\U0001faff"
# Plain signs that a variation selector turns into emoji.
_SIGNS = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299"
_PREFIXES = "#@$€£"
_OPENINGS = "<{[%'\u2019*" + _PREFIXES  # no part of a word of letters, but may begin what is one
_CLITICS = r"(?:s|m|d|re|ve|ll|em|t|tis|twas)(?![^\W_])"  # behind "'", as in "it 's" of tokenised text
# Points and colons join digits and single letters only: a full stop without its space is no word.
_JOINT = r"['\u2019\-&/·]|(?<=\d)[.,:](?=\d)|(?<=\b\w)\.(?=\w\b)|\.(?=[\w.+-]+@\w)"
# Behind a full stop: "U.S.", "Mr.". Looked at after stops only, which is cheap.
_SHORT = ["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "vs", "etc"]
_ABBREVIATED = "|".join([r"(?<=\b\w\.\w\.)", *(rf"(?<=\b{short}\.)" for short in _SHORT)])


@functools.cache
def word_pattern() -> re.Pattern:
    """Matches a word, in the one group that makes `split` keep it.

    It takes one sign that may begin a word, and its branches look back at which it was: so `re` runs over what stands
    between words without trying them, in half the time.
    """
    letter = f"[^{_ranges(_is_between)}{_CJK}\U0001f000-\U0001ffff\U000e0000-\U000e007f]"
    host = f"@(?:{letter}|-)+(?:\\.{letter}+)+"
    end = f"(?:{host})?(?:(?<=\\d)%|\\.(?:{_ABBREVIATED})(?![^\\W_]))?"
    branches = [
        "(?<=[A-Za-z])[A-Za-z]*(?= )",  # most words
        f"(?:(?<=h)ttps?://|(?<=w)ww\\.){_URL_REST}",
        *(f"(?<={first}){rest}" for first, rest in _PLACEHOLDERS.items()),
        f"(?<=(?<!\\S)['\u2019]){_CLITICS}",
        f"(?<=[{_CJK}])[{_CJK_MARKS}]*",
        *_emoji(),
        f"(?:(?<={letter})|(?<=[{_PREFIXES}])(?={letter})){letter}*(?:(?:{_JOINT}){letter}+)*{end}",
    ]
    return re.compile(f"([^{_ranges(_begins_nothing)}](?:{'|'.join(branches)}))")


@functools.cache
def _emoji_sign() -> re.Pattern:
    return re.compile(f"[{_EMOJI}{_SIGNS}]")


@functools.cache
def _cjk() -> re.Pattern:
    return re.compile(f"[{_CJK}]")


def _emoji() -> list[str]:
    """What follows the first sign of an emoji: a flag's second, a keycap, or colour of skin and joined ones."""
    rest = "\ufe0f?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*"
    one = f"(?:[{_EMOJI}]|[{_SIGNS}](?=\ufe0f)){rest}"
    first = f"(?:(?<=[{_EMOJI}])|(?<=[{_SIGNS}])(?=\ufe0f)){rest}(?:\u200d{one})*"
    return [f"(?<=[{_FLAG}])[{_FLAG}]", "(?<=[0-9#*])\ufe0f?\u20e3", first]


def _ranges(holds: Callable[[str], bool]) -> str:
    """The signs for which something holds, as the inside of a character class."""
    # Only the Basic Multilingual Plane, which `re` looks up in a table; ranges beyond it are tried one by one.
    inside = [holds(chr(code)) for code in range(0x10000)] + [False]
    edges = [code for code in range(0x10001) if inside[code] != (code > 0 and inside[code - 1])]
    return "".join(f"\\u{start:04x}-\\u{end - 1:04x}" for start, end in zip(edges[::2], edges[1::2]))


def _is_between(sign: str) -> bool:
    """Whether a sign is no part of a word: punctuation, symbol, space, control."""
    # Joiners and the soft hyphen stand inside words; blanks to fill in are written with underscores.
    kind = unicodedata.category(sign)
    return (kind[0] in "PSZ" or kind in ("Cc", "Cf")) and sign not in "_\u200c\u200d\u00ad"


def _begins_nothing(sign: str) -> bool:
    return _is_between(sign) and sign not in _OPENINGS and not _emoji_sign().match(sign)


def split_words(text: str) -> tuple[list[str], list[str]]:
    """The words of a text, and the gaps before, between and after them: one more.

    Example:
        >>> split_words("Don't  panic!")
        (["Don't", 'panic'], ['', '  ', '!'])
    """
    pieces = word_pattern().split(text)
    return pieces[1::2], pieces[::2]


def is_word(token: str) -> bool:
    """Whether a token of a list is more than punctuation and space."""
    return token.isalnum() or word_pattern().search(token) is not None


def needs_space(before: str, after: str) -> bool:
    """Whether two words that come to stand side by side are written apart."""
    first, second = before[-1:], after[:1]
    # All those scripts come behind the sign compared with; most words are settled by that.
    return first < "\u3005" or second < "\u3005" or not (_cjk().match(first) and _cjk().match(second))


def is_plain(word: str) -> bool:
    """Whether a word has letters only, with inner apostrophes and hyphens: no address, number or clitic such as n't."""
    if word.isalpha():
        return True
    parts = word.replace("\u2019", "'").replace("-", "'").split("'")
    return all(part.isalpha() for part in parts) and parts != ["n", "t"]
