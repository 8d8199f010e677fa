"""What a step with neighbors costs over the plain Trainer's. Writes `results/neighbors_cost.json`.

    python recipes/benchmarks/neighbors_cost.py --steps 120

Neighbors vote from the second pass on, which a data set that fills their memory takes long to come to. Here they are
asked from the first step on: the search goes over all places, whether there is an example at them or not.
"""

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from cost import PLAIN, Options, trainer
from small_bert import CLASSES, device_name
from transformers import HfArgumentParser, logging
from turns import in_turn, median_ms, ratio

from hf_sat.neighborhood import MOST_NEIGHBORS, MOST_REMEMBERED

RESULTS = Path(__file__).parent / "results"
METHOD = f"sat:sat_start_epoch=0:sat_momentum=0.5:sat_neighbors={MOST_NEIGHBORS}"


@dataclass
class Choices:
    steps: int = field(default=120, metadata={"help": "Steps of each; the first tenth is not counted."})
    batch_size: int = field(default=8, metadata={"help": "Examples a step, of 32 tokens."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    out: str = field(default=str(RESULTS / "neighbors_cost.json"), metadata={"help": "File of the result."})


def main() -> None:
    (choices,) = HfArgumentParser(Choices).parse_args_into_dataclasses()
    torch.set_num_threads(choices.threads)
    logging.set_verbosity_error()
    options = Options(steps=choices.steps, batch_size=choices.batch_size, examples=MOST_REMEMBERED)
    result = {
        "device": device_name(),
        "torch": torch.__version__,
        "remembered": MOST_REMEMBERED,
        "neighbors": MOST_NEIGHBORS,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "by_classes": {classes: measure(options, classes) for classes in (CLASSES, 2)},
    }
    for classes, measured in result["by_classes"].items():
        print(
            "{classes} classes: {ratio:.3f} of the plain step ({plain_ms:.0f} ms)".format(classes=classes, **measured)
        )
    Path(choices.out).write_text(json.dumps(result, indent=1) + "\n")


def measure(options: Options, classes: int) -> dict[str, float]:
    """Neighbors are found by logits, with two classes by what the last layer is given, here 256 numbers."""
    early = ("hf_sat.recipe.PASSES_BEFORE", "hf_sat.correction.PASSES_BEFORE", "hf_sat.correction.VOTES_FROM")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
        for name in early:
            patches.enter_context(patch(name, 0.0))
        both = [trainer(name, options, folder, options.steps, classes) for name in (PLAIN, METHOD)]
        plain, ours = in_turn(both)
    return {"plain_ms": median_ms(plain), "ms": median_ms(ours), "ratio": ratio(ours, plain)}


if __name__ == "__main__":
    main()
