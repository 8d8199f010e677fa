"""pytest plugin: the classes of hf_sat in the place of transformers', for its own tests; see tests/README.md.

`LABEL_CORRECTION` in the environment is what `label_correction` is where a test does not say: "none" turns all off.
"""

import os
import sys
from dataclasses import dataclass

from hf_sat import SATConfig, SATSeq2SeqConfig, SATSeq2SeqTrainer, SATTrainer

LABEL_CORRECTION = os.environ["LABEL_CORRECTION"]


# At the top of the module, as checkpoints hold the arguments as a pickle.
@dataclass
class SwappedConfig(SATConfig):
    label_correction: str = LABEL_CORRECTION


@dataclass
class SwappedSeq2SeqConfig(SATSeq2SeqConfig):
    label_correction: str = LABEL_CORRECTION


class SwappedTrainer(SATTrainer):
    default_label_correction = LABEL_CORRECTION


class SwappedSeq2SeqTrainer(SATSeq2SeqTrainer):
    default_label_correction = LABEL_CORRECTION


# Not `import transformers`: its module is made anew when the Trainer is first imported, above.
sys.modules["transformers"].__dict__.update(
    Trainer=SwappedTrainer,
    TrainingArguments=SwappedConfig,
    Seq2SeqTrainer=SwappedSeq2SeqTrainer,
    Seq2SeqTrainingArguments=SwappedSeq2SeqConfig,
)


def pytest_collection_finish(session):
    if sys.modules["transformers"].Trainer is not SwappedTrainer:
        raise RuntimeError("transformers was imported anew after the swap, so that the tests have its own Trainer")
