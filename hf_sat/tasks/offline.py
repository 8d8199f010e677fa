"""Nothing leaves the machine: the libraries of Hugging Face without their network.

Imports none of them, as most read their environment when they are imported.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
# Where a library that is imported already keeps what it read.
READ_BEFORE = {"huggingface_hub.constants": "HF_HUB_OFFLINE", "datasets.config": "HF_HUB_OFFLINE"}


@contextlib.contextmanager
def no_network(wanted: bool = True) -> Iterator[None]:
    """Within it, models and data come from this machine or not at all, and no library reports its use.

    Args:
        wanted: False leaves everything as it is, for data or a model of the Hub.

    Example:
        >>> with no_network():
        ...     os.environ["HF_HUB_OFFLINE"]
        '1'
    """
    if not wanted:
        yield
        return
    before = {name: os.environ.get(name) for name in SWITCHES}
    read = [(sys.modules[module], name) for module, name in READ_BEFORE.items() if module in sys.modules]
    values = [getattr(module, name, False) for module, name in read]
    os.environ.update(SWITCHES)
    for module, name in read:
        setattr(module, name, True)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        for (module, name), value in zip(read, values):
            setattr(module, name, value)
        # Imported within, they have read the switches above.
        for module, name in READ_BEFORE.items():
            if module in sys.modules and sys.modules[module] not in [found for found, _ in read]:
                setattr(sys.modules[module], name, before["HF_HUB_OFFLINE"] not in (None, "", "0"))
