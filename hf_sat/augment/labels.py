"""Labels of words that follow their words, and entities that stay entities."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

from .checks import refuse
from .sequence import INSERTED

OUTSIDE, IGNORED = "O", -100
# Prefixes of the first, an inner, the last and the only word of an entity.
_SCHEMES = {"BIO": "BIIB", "IOBES": "BIES", "BILOU": "BILU"}


def labels_follow(labels: Items, origins: Items[int], names: Items[str] | None = None, inserted: Any = None) -> list:
    """The labels of augmented words.

    Each word has the label of the word it came from. Tags of entities are written anew, in the scheme they are in (BIO,
    IOBES or BILOU): words of one entity that stand side by side are an entity, whose first word begins it. So no I-
    ever follows an O because its B- was deleted, split or moved. Tags of a text in which nothing changed stay as they
    are.

    Args:
        labels: a label for each original word: tags such as "B-PER", or whole numbers.
        origins: for each new word the index of the original one, -1 for inserted words.
        names: names of the labels, where they are numbers, such as `features["ner_tags"].feature.names`. Without them
            numbers have no entities and just follow.
        inserted: the label of inserted words; default: "O" where labels have names, otherwise -100.

    Returns:
        Labels of the new words, of the kind that came in.

    Raises:
        ValueError: an origin has no label, or a label no name.

    Example:
        >>> labels_follow(["O", "B-PER", "I-PER", "O"], [0, 2, -1, 3])
        ['O', 'B-PER', 'O', 'O']
        >>> labels_follow([3, 1, 2], [2, 0, -1])
        [2, 3, -100]
    """
    labels, origins = list(labels), [int(origin) for origin in origins]
    if any(not INSERTED <= origin < len(labels) for origin in origins):
        raise refuse("labels", labels, f"give a label for each of the {max(origins) + 1} or more original words.")
    if origins == list(range(len(labels))):
        return labels
    tags = tags_of(labels, names)
    if inserted is None:
        inserted = _outside(tags, names)
    if tags is None:
        return [inserted if origin == INSERTED else labels[origin] for origin in origins]
    entities = _entities(tags)
    moved = _written([None if at == INSERTED else entities[at] for at in origins], [tags[at] for at in origins], tags)
    known = dict(zip(tags, labels))
    numbers = {name: number for number, name in enumerate(names)} if names is not None else {}
    kept = [inserted if at == INSERTED else known.get(tag, numbers.get(tag, tag)) for at, tag in zip(origins, moved)]
    if names is not None and (strange := [label for label in kept if isinstance(label, str)]):
        raise refuse("names", list(names), f"the scheme of these tags needs {strange[0]!r} too.")
    return kept


def tags_of(labels: Items, names: Items[str] | None) -> list[str | None] | None:
    """Labels as tags of entities; None for those to ignore, and for all where they are no such tags."""
    if all(isinstance(label, str) for label in labels):
        tags: list[str | None] = list(labels)
    elif names is not None:
        if any(label != IGNORED and not 0 <= label < len(names) for label in labels):
            raise refuse("labels", list(labels), f"names has {len(names)} names; a label is outside them.")
        tags = [None if label == IGNORED else names[label] for label in labels]
    else:
        return None
    found = [tag for tag in tags if tag is not None] if names is None else list(names)
    plain = all(tag == OUTSIDE or tag[1:2] == "-" for tag in found)
    return tags if found and plain else None


def entity_words(labels: Items, names: Items[str] | None) -> list[bool]:
    """Which words are of an entity."""
    tags = tags_of(labels, names)
    return [tags is not None and tags[at] not in (None, OUTSIDE) for at in range(len(labels))]


def _outside(tags: list | None, names: Items[str] | None) -> Any:
    if names is not None:
        return list(names).index(OUTSIDE) if OUTSIDE in names else IGNORED
    return OUTSIDE if tags is not None else IGNORED


def _entities(tags: list[str | None]) -> list[int | None]:
    """For each word the number of its entity."""
    entities, before = [], None
    for at, tag in enumerate(tags):
        if tag is None or tag == OUTSIDE:
            entities.append(None)
        elif at and entities[-1] is not None and tag[0] in "IEL" and before[0] not in "ESLU" and before[1:] == tag[1:]:
            entities.append(entities[-1])
        else:
            entities.append(at)
        before = tag
    return entities


def _written(entities: list[int | None], tags: list[str | None], originals: list[str | None]) -> list[str | None]:
    """Tags anew, from the entity of each word."""
    prefixes = {tag[0] for tag in originals if tag}
    scheme = "IOBES" if prefixes & {"E", "S"} else "BILOU" if prefixes & {"L", "U"} else "BIO"
    first, inner, last, only = _SCHEMES[scheme]
    written = []
    for at, entity in enumerate(entities):
        if entity is None:
            written.append(tags[at])
            continue
        begins = at == 0 or entities[at - 1] != entity
        ends = at + 1 == len(entities) or entities[at + 1] != entity
        written.append((only if begins and ends else first if begins else last if ends else inner) + tags[at][1:])
    return written
