"""The columns of the grid, a data set with a noise each, and the two halves they are split in."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch

# Injected noise is written as its kind and its rate in per cent; the rest comes with the data or is none.
REAL = ("weak", "aggre", "worse")
INJECTED = re.compile(r"(symmetric|pair|instance)(\d+)")

# Defaults and extra terms are chosen on this half. It has every kind of noise once: the TREC columns that the first
# defaults were looked at with, all of SST-2, weak labels, the noisier human labels; and many classes.
CHOOSE = (
    "trec/symmetric40",
    "trec/symmetric60",
    "trec/pair40",
    "trec/instance40",
    "trec/clean",
    "trec_fine/symmetric40",
    "sst/symmetric20",
    "sst/symmetric40",
    "sst/clean",
    "ag/weak",
    "cifar/symmetric40",
    "cifar/worse",
)
# This half is only reported on. SUBJ is nowhere else, AG News with injected noise neither. Pair noise with two classes
# is symmetric noise, so TREC and AG News carry it, one in each half at 40 %. Noise that depends on the instance comes
# with many classes here.
REPORT = (
    "trec/symmetric20",
    "trec/pair20",
    "trec/weak",
    "trec_fine/instance40",
    "subj/symmetric20",
    "subj/symmetric40",
    "subj/clean",
    "ag/symmetric40",
    "ag/pair40",
    "ag/clean",
    "cifar/symmetric80",
    "cifar/aggre",
    "cifar/clean",
)
ALL = CHOOSE + REPORT


@dataclass(frozen=True)
class Column:
    """A data set and its noise.

    Args:
        data: "trec", "trec_fine", "sst", "subj", "ag" or "cifar".
        noise: "clean", an injected kind with its rate ("pair40"), or one that comes with the data.
    """

    data: str
    noise: str

    @classmethod
    def parse(cls, name: str) -> "Column":
        """Read `data/noise`; a noise need not be one of the grid's, "trec/pair10" is fine."""
        data, _, noise = name.partition("/")
        if not (data and (noise == "clean" or noise in REAL or INJECTED.fullmatch(noise))):
            raise ValueError(f"column {name!r}: write data/noise, such as {ALL[0]} or {ALL[-1]}")
        return cls(data, noise)

    @property
    def injected(self) -> tuple[str, float] | None:
        """Kind and share of the injected noise."""
        match = INJECTED.fullmatch(self.noise)
        return match and (match[1], int(match[2]) / 100)

    @property
    def is_real(self) -> bool:
        """Whether people or rules made the wrong labels."""
        return self.noise in REAL

    @property
    def is_image(self) -> bool:
        return self.data == "cifar"

    def __str__(self) -> str:
        return f"{self.data}/{self.noise}"


def select(names: str) -> list[str]:
    """Columns by a comma-separated list of halves, kinds of data and patterns.

    Args:
        names: "choose", "report" or "all", each also with ":text" or ":images" after it; columns; patterns of columns.

    Example:
        >>> select("choose:images,ag/cl*,trec/pair10")
        ['cifar/symmetric40', 'cifar/worse', 'ag/clean', 'trec/pair10']
    """
    halves = {"choose": CHOOSE, "report": REPORT, "all": ALL}
    chosen = []
    for name in names.split(","):
        half, _, kind = name.partition(":")
        if half in halves:
            chosen += [c for c in halves[half] if not kind or Column.parse(c).is_image == (kind == "images")]
        else:
            chosen += [c for c in ALL if fnmatch(c, name)] or [str(Column.parse(name))]
    return list(dict.fromkeys(chosen))
