"""Which tests pass with theirs and not with ours: `compare.py THEIRS.xml OURS.xml`; see tests/README.md.

Ends with 1 where one of them fails on something else than a refusal of label correction.
"""

import collections
import sys
import xml.etree.ElementTree as ElementTree

REFUSAL = ("ValueError", 'label_correction="none"')


def outcomes(path: str) -> dict[str, tuple[str, str]]:
    """For each test of a file of `pytest --junitxml`, what became of it and the text of its failure."""
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        what = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = ("passed", "") if what is None else (what.tag, what.text or "")
    return found


def main(theirs: str, ours: str) -> int:
    before, after = outcomes(theirs), outcomes(ours)
    for path, found in ((theirs, before), (ours, after)):
        print(path, dict(collections.Counter(kind for kind, _ in found.values())))
    differing = {
        name: after.get(name, ("missing", ""))
        for name, (kind, _) in before.items()
        if kind == "passed" and after.get(name, ("missing", ""))[0] != "passed"
    }
    others = 0
    for name, (kind, text) in differing.items():
        error = ([line[1:].strip() for line in text.splitlines() if line.startswith("E ")] or [text[-200:]])[-1]
        is_refusal = all(part in error for part in REFUSAL)
        others += not is_refusal
        print(f"{'refused' if is_refusal else kind.upper()} {name}\n    {error}")
    print(f"{len(differing)} pass with theirs and not with ours; {others} of them are no refusal")
    return int(others > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
