"""Blocks of a Markdown file that are written by a command, between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

import re


def with_blocks(text: str, blocks: dict[str, str]) -> str:
    """The text with its blocks filled.

    Raises:
        ValueError: for a block without its two markers.

    Example:
        >>> with_blocks("a <!-- x: begin --><!-- x: end --> b", {"x": "new"}).splitlines()
        ['a <!-- x: begin -->', 'new', '<!-- x: end --> b']
    """
    for name, body in blocks.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"block {name!r}: the file needs one {begin} with {end} after it")
        new = f"{begin}\n{body}\n{end}"
        text = pattern.sub(lambda _, new=new: new, text)
    return text
