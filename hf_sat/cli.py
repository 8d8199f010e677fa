"""The command `hf-sat`."""

import sys
from collections.abc import Sequence

COMMANDS = {
    "sharpness": "how steeply the loss rises around a trained model",
}
USAGE = "usage: hf-sat COMMAND ...\n\n" + "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 for what cannot be done as asked."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE)
        return 0
    if name not in COMMANDS:
        print(f"hf-sat {name}: there is no such command.\n\n{USAGE}", file=sys.stderr)
        return 2
    try:
        _run(name, rest)
    except ValueError as error:
        print(f"hf-sat {name}: {error}", file=sys.stderr)
        return 2
    return 0


def _run(name: str, argv: Sequence[str]) -> None:
    # Late: torch and transformers take seconds, and `--help` needs neither.
    if name == "sharpness":
        from .tasks.sharpness_curve import sharpness_command

        sharpness_command(argv)


if __name__ == "__main__":
    sys.exit(main())
