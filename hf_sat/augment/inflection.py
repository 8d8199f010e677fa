"""Regular English inflection, where it is safe: plurals of nouns, -s, -ed and -ing of verbs.

Irregular forms are left out, save those that the exception list spells as the rule would but for a doubled letter
("stopped"). So are comparatives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

VOWELS = "aeiou"


def irregular_forms(path: Path) -> dict[str, list[str]]:
    """The forms that an exception list (lines of form and lemmas) has for each lemma; empty without the file."""
    forms: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="latin-1").splitlines() if path.is_file() else ():
        form, *lemmas = line.split()
        for lemma in lemmas:
            forms[lemma].append(form)
    return forms


def inflected(lemma: str, options: list[str], pos: str, irregular: dict) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Forms of a lemma, each with the same form of its synonyms; those whose form is not sure are left out."""
    for ending in {"noun": ("s",), "verb": ("s", "ed", "ing")}.get(pos, ()):
        form = form_of(lemma, pos, ending, irregular)
        others = [form_of(option, pos, ending, irregular) for option in options]
        if form and any(others):
            yield form, tuple(filter(None, others))


def form_of(lemma: str, pos: str, ending: str, irregular: dict) -> str | None:
    """A lemma with -s, -ed or -ing; None where the rules may fail.

    Example:
        >>> form_of("carry", "verb", "ed", {}), form_of("stop", "verb", "ed", {"stop": ["stopped", "stopping"]})
        ('carried', 'stopped')
        >>> form_of("child", "noun", "s", {"child": ["children"]}) is None
        True
    """
    exceptions = irregular.get(lemma, [])
    if ending == "s":
        sure = not any(pos == "noun" or form.endswith("s") for form in exceptions) and not lemma.endswith("s")
        return _with_s(lemma) if sure else None
    known = [form for form in exceptions if form.endswith("ing") == (ending == "ing")]
    if known:
        return known[0] if len(known) == 1 and known[0].endswith(ending) else None
    return _with_ed(lemma) if ending == "ed" else _with_ing(lemma)


def _with_s(lemma: str) -> str:
    if lemma.endswith("y") and lemma[-2:-1] not in VOWELS:
        return lemma[:-1] + "ies"
    return lemma + ("es" if lemma.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _with_ed(lemma: str) -> str:
    if lemma.endswith("y") and lemma[-2:-1] not in VOWELS:
        return lemma[:-1] + "ied"
    return lemma + ("d" if lemma.endswith("e") else "ed")


def _with_ing(lemma: str) -> str:
    if lemma.endswith("ie"):
        return lemma[:-2] + "ying"
    return (lemma[:-1] if lemma.endswith("e") and not lemma.endswith(("ee", "oe", "ye")) else lemma) + "ing"
