"""The import swap: what a user's script brings, and how two runs are compared."""

import json
import os

import torch
from small import CLASSES, bert

TIMED = ("runtime", "samples_per_second", "steps_per_second")
NEVER = {"sat_start_epoch": 99}
ON = {"sat_start_epoch": 0.5, "sat_momentum": 0.5}
EVALUATING = {"eval_strategy": "steps", "eval_steps": 2}


def history(trainer) -> list[dict]:
    return [{k: v for k, v in log.items() if not k.endswith(TIMED)} for log in trainer.state.log_history]


def files(folder: str) -> dict[str, bytes | dict]:
    """Every file under a folder by its path; the Trainer's own state without times and places."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                content = file.read()
            if name == "trainer_state.json":
                content = json.loads(content.decode().replace(folder, ""))
                for log in content["log_history"]:
                    for key in [key for key in log if key.endswith(TIMED)]:
                        del log[key]
            found[os.path.relpath(path, folder)] = b"" if name == "training_args.bin" else content
    return found


def accuracy(predictions) -> dict[str, float]:
    return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}


def lora():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2, lora_dropout=0.1))


class OwnHead(torch.nn.Module):
    """A module of the user's: no config, no num_labels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.EmbeddingBag(40, 16)
        self.head = torch.nn.Linear(16, CLASSES)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(torch.dropout(self.embedding(input_ids), 0.1, self.training))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if labels is not None else {"logits": logits}


def optimizers(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def own_loss(base):
    class OwnLoss(base):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
            loss = loss + 0.01 * sum(p.square().sum() for p in model.parameters())
            return (loss, outputs) if return_outputs else loss

    return OwnLoss


def own_step(base):
    class OwnStep(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            model.train()
            inputs = self._prepare_inputs(inputs)
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            self.accelerator.backward(loss)
            return loss.detach()

    return OwnStep
