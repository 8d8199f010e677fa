"""The command `hf-sat`."""

import os
import sys
from collections.abc import Callable, Sequence

COMMANDS = {
    "train": "fine-tune a classifier of texts, images or tokens on labels that cannot be fully trusted",
    "augment": "what an augmentation makes of texts",
    "audit": "find the wrong labels in a file of texts or a folder of images",
    "env": "versions and devices, for bug reports",
    "sharpness": "how steeply the loss rises around a trained model",
}
USAGE = "usage: hf-sat COMMAND ...\n\n" + "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for what cannot be done as asked, or one of the command's own."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE)
        return 0
    if name not in COMMANDS:
        print(f"hf-sat {name}: there is no such command.\n\n{USAGE}", file=sys.stderr)
        return 2
    return exit_status(f"hf-sat {name}", lambda: RUN[name](rest))


def exit_status(program: str, run: Callable[[], int | None]) -> int:
    """The exit status of a program: 2, and a line, for what it refuses; else what it returns, or 0."""
    try:
        status = run()
        _leave_other_processes()
        return status if isinstance(status, int) else 0
    except (ValueError, ModuleNotFoundError) as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # once, not from each process
            print(f"{program}: {error}", file=sys.stderr)
        return 2


def _leave_other_processes() -> None:
    """Close the process group, if any; a worker thread that still holds a tensor at exit aborts the interpreter."""
    distributed = sys.modules.get("torch.distributed")  # what has not been imported has opened none
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


# Late imports: torch and transformers take seconds, and `--help` needs neither.


def _augment(argv: Sequence[str]) -> None:
    from .tasks.augment_preview import augment_command

    augment_command(argv)


def _audit(argv: Sequence[str]) -> int:
    from .tasks.audit_options import read_audit_options
    from .tasks.offline import no_network

    options = read_audit_options(argv)
    with no_network(options.is_local):  # before the libraries are imported that would use it
        from .tasks.audit import audit_command

        return audit_command(options)


def _env(argv: Sequence[str]) -> None:
    from .tasks.environment import environment_command

    environment_command(argv)


def _sharpness(argv: Sequence[str]) -> None:
    from .tasks.sharpness_curve import sharpness_command

    sharpness_command(argv)


def _train(argv: Sequence[str]) -> None:
    from .tasks.train import train

    train(argv)


RUN: dict[str, Callable[[Sequence[str]], int | None]] = {
    "augment": _augment,
    "audit": _audit,
    "env": _env,
    "sharpness": _sharpness,
    "train": _train,
}


if __name__ == "__main__":
    sys.exit(main())
