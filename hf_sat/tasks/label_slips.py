"""Names of classes that read like a slip of another's."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable

# A slip is rare beside what was meant, and reads like it.
TIMES_RARER, LEAST_ALIKE = 20, 0.8
# Of more classes each would be compared with too many.
MOST_CLASSES = 300


def slips(labels: Iterable[str]) -> dict[str, str]:
    """Classes that are likely another one, misspelt: rare ones that read like a usual one, with the same digits.

    Args:
        labels: of all rows; of more than 300 classes none is looked at.

    Returns:
        By each such class the one that may be meant.

    Example:
        >>> slips(["spam"] * 40 + ["ham 1"] * 40 + ["spamm", "Spam ", "eggs", "ham 2"])
        {'spamm': 'spam', 'Spam ': 'spam'}
    """
    counts = Counter(labels)
    if len(counts) > MOST_CLASSES:
        return {}
    # Of names that are alike but for case and spaces the most usual stands for all.
    usual = {folded(name): name for name, _ in reversed(counts.most_common())}
    meant = {name: _meant(name, counts, usual) for name in counts}
    return {name: other for name, other in meant.items() if other is not None}


def _meant(name: str, counts: Counter, usual: dict[str, str]) -> str | None:
    near = difflib.get_close_matches(folded(name), usual, n=2, cutoff=LEAST_ALIKE)
    alike = (usual[one] for one in near if _digits(one) == _digits(name))
    return next((one for one in alike if counts[one] >= TIMES_RARER * counts[name]), None)


def folded(name: str) -> str:
    """Without case and outer spaces."""
    return name.strip().casefold()


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)
