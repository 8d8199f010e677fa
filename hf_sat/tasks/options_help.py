"""The page that `--help` prints: settings in groups, ours first; `--help_all` shows those of transformers too."""

import inspect
import shutil
from argparse import Action, ArgumentParser, HelpFormatter
from collections.abc import Sequence

UPSTREAM = "training, as transformers.TrainingArguments"
# Of some hundred settings of `TrainingArguments`, those that most runs are told.
USUAL = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "eval_strategy",
    "save_strategy",
    "resume_from_checkpoint",
    "seed",
    "bf16",
    "use_cpu",
    "report_to",
)


class HelpAll(Action):
    """`--help_all`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: ArgumentParser, *_) -> None:
        print(help_page(parser, everything=True))
        parser.exit()


def help_page(parser: ArgumentParser, everything: bool = False) -> str:
    """What `--help` prints.

    Args:
        parser: an `OptionParser`. A dataclass may name the group of its settings in `HELP_GROUP`; with
            `HELP_ALL_ONLY` they are left to `--help_all`.
        everything: with the settings of transformers, and those that are seldom changed.
    """
    formatter = _Formatter(parser.prog, max_help_position=34, width=min(shutil.get_terminal_size().columns, 120))
    formatter.add_text(f"usage: {parser.usage or f'{parser.prog} [--setting value ...]'}")
    formatter.add_text(parser.description)
    formatter.start_section("settings are flags, or lines of a file")
    formatter.add_arguments([action for action in parser._actions if _is_general(action)])
    formatter.end_section()
    for title, actions in _grouped(parser, everything).items():
        formatter.start_section(title)
        formatter.add_arguments(actions)
        formatter.end_section()
    formatter.add_text(parser.epilog)
    if not everything:
        formatter.add_text("--help_all shows the other settings of transformers.TrainingArguments too.")
    return formatter.format_help()


def _grouped(parser: ArgumentParser, everything: bool) -> dict[str, list[Action]]:
    """The settings to show, by the title of their group."""
    origins, groups = {}, {}
    for kind in parser.dataclass_types:
        for origin in kind.__mro__[:-1]:
            groups.setdefault(_title(origin), [])
            # The class furthest up that has a setting is its origin, though others may give it another default.
            origins.update((name, origin) for name in inspect.get_annotations(origin))
    for action in parser._actions:
        origin = origins.get(action.dest)
        if origin is not None and not _is_complement(action) and (everything or _is_short(action, origin)):
            groups[_title(origin)].append(action)
    return {title: actions for title, actions in groups.items() if actions}


def _title(origin: type) -> str:
    return UPSTREAM if _is_upstream(origin) else getattr(origin, "HELP_GROUP", "more settings")


def _is_upstream(origin: type) -> bool:
    return origin.__module__.startswith("transformers.")


def _is_general(action: Action) -> bool:
    return action.dest in ("help", "help_all", "config")


def _is_complement(action: Action) -> bool:
    """`--no_compare` beside `--compare`."""
    return action.const is False


def _is_short(action: Action, origin: type) -> bool:
    if _is_upstream(origin):
        return action.dest in USUAL
    return not vars(origin).get("HELP_ALL_ONLY", False)


class _Formatter(HelpFormatter):
    """A line or two for a setting: its name, what may be given, what it does, its default."""

    def _format_action_invocation(self, action: Action) -> str:
        name = next(name for name in reversed(action.option_strings) if "-" not in name[2:])
        return " ".join(part for part in (name, _values(action)) if part)

    def _get_help_string(self, action: Action) -> str:
        text = " ".join((action.help or "").split())
        if not _is_general(action) and len(text) > 160:
            text = text.partition(". ")[0].rstrip(".") + "."
        has_default = action.default not in (None, "", "==SUPPRESS==") and not _is_general(action)
        return f"{text} [%(default)s]" if has_default and "[%(default)s]" not in text else text

    def _metavar_formatter(self, action: Action, default_metavar: str):
        return lambda size: ("",) * size


def _values(action: Action) -> str:
    """What a setting takes."""
    if action.choices:
        return "|".join(map(str, action.choices))
    if action.nargs == "?":
        return "true|false"
    if action.nargs == 0:
        return ""
    name = {int: "N", float: "X"}.get(action.type, "...")
    return f"{name} ..." if action.nargs == "+" and name != "..." else name
