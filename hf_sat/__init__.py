"""hf_sat: a Hugging Face `Trainer` for labels that cannot be fully trusted."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import audit, augment, methods, noise
    from .config import SATConfig, SATSeq2SeqConfig
    from .students import create_student
    from .teacher_columns import add_teacher_columns
    from .trainer import SATMixin, SATSeq2SeqTrainer, SATTrainer

__version__ = "0.1.0"

__all__ = [
    "SATConfig",
    "SATMixin",
    "SATSeq2SeqConfig",
    "SATSeq2SeqTrainer",
    "SATTrainer",
    "add_teacher_columns",
    "audit",
    "augment",
    "create_student",
    "methods",
    "noise",
]

_HOMES = {
    "SATConfig": ".config",
    "SATMixin": ".trainer",
    "SATSeq2SeqConfig": ".config",
    "SATSeq2SeqTrainer": ".trainer",
    "SATTrainer": ".trainer",
    "add_teacher_columns": ".teacher_columns",
    "create_student": ".students",
}


def __getattr__(name: str) -> Any:
    # Late, so that `import hf_sat` stays light: transformers' Trainer brings peft and more where they are installed.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
