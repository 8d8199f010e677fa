"""What came of a distillation, and the table that shows it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from .results import Result
from .speed import Speed

if TYPE_CHECKING:
    from rich.table import Table

# A line of 80 characters takes the table.
HEADERS = ("accuracy\n(%)", "kept\n(%)", "params", "size", "samples\na second", "speed", "time")


@dataclass
class ModelResult(Result):
    """What came of a run, and how large and fast its model is.

    Args:
        folder: where the model lies; None where it was trained before.
        parameters: their number.
        weight_bytes: size of the saved weights.
        samples_per_second: of inference, see [`Speed`].
        speed_up: how many times as fast as the teacher.
        kept: accuracy as a share of the teacher's.
    """

    folder: str | None = None
    parameters: int = 0
    weight_bytes: int = 0
    samples_per_second: float = 0.0
    speed_up: float = 1.0
    kept: float | None = None


def measured_model(result: Result, model: nn.Module, folder: str | None, speed: Speed, teacher: Result) -> ModelResult:
    """All that the table says of a model.

    Args:
        result: of its run.
        folder: where it was saved, if it was.
        speed: of its inference, over the teacher's.
        teacher: result of the teacher.
    """
    known = result.score is not None and teacher.score
    return ModelResult(
        **asdict(result),
        folder=folder,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=weight_bytes(model, folder),
        samples_per_second=speed.samples_per_second,
        speed_up=speed.over_first,
        kept=result.score / teacher.score if known else None,
    )


def weight_bytes(model: nn.Module, folder: str | None) -> int:
    """Of the files in a folder; without one, of the tensors that would be in them."""
    if folder is not None:
        return sum(file.stat().st_size for file in Path(folder).glob("model*.safetensors"))
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.nbytes for tensor in tensors.values())


def models_table(results: Sequence[ModelResult], title: str, held_out: int) -> "Table":
    """The results as a `rich.table.Table`, a row for each."""
    from rich.table import Table

    about = f"Accuracy on {held_out} held-out texts after the last step, and what the student keeps of the teacher's."
    table = Table(title=title, caption=f"{about} Speed is that of inference, time that of training.")
    table.add_column("model")
    for header in HEADERS:
        table.add_column(header, justify="right")
    for result in results:
        table.add_row(result.name, *_cells(result))
    return table


def _cells(result: ModelResult) -> list[str]:
    time = f"{result.seconds:.0f} s" + ("\n(resumed)" if result.resumed else "")
    return [
        _percent(result.score),
        _percent(result.kept),
        f"{result.parameters / 1e6:.1f}M",
        f"{result.weight_bytes / 1e6:.0f} MB",
        f"{result.samples_per_second:.0f}",
        f"{result.speed_up:.2f}x",
        "-" if result.folder is None else time,
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def print_models(results: Sequence[ModelResult], title: str, held_out: int) -> None:
    """Print the table and where the models lie."""
    from rich.console import Console

    Console().print(models_table(results, title, held_out))
    for result in results:
        if result.folder is not None:
            print(f"{result.name}: {result.folder}")
