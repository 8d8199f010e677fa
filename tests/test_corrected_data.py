"""The corrected data set: relabelled, without the suspects, or with soft targets."""

import datasets
import numpy as np
import pytest
import torch
from data_runs import BASE, DATASETS, train
from small import make_trainer, pad, text_data, weights


@pytest.mark.parametrize("name", ["ClassLabel", "torch", "selected", "set_transform", "subset"])
def test_corrected_data_sets(runs, name):
    data, order, settings = DATASETS[name]()
    trainer = train(runs, data, **settings)
    corrected = trainer.corrected_dataset()
    column = "label" if name == "ClassLabel" else "labels"
    rows = corrected.with_format(None) if isinstance(corrected, datasets.Dataset) else corrected
    report = trainer.label_report().to_pandas()
    assert [int(rows[i][column]) for i in range(len(order))] == report["corrected_label"].tolist()
    assert [int(rows[i][f"given_{column}"]) for i in range(len(order))] == [BASE["labels"][i] for i in order]
    assert report["is_label_issue"].any()


def test_a_corrected_data_set_speaks_the_language_of_the_given_one(runs):
    """The collator shifts labels by one, so corrected labels must be shifted back, or the call refused."""
    data, _, settings = DATASETS["shifted"]()
    trainer = train(runs, data, **settings)
    try:
        corrected = trainer.corrected_dataset()
    except ValueError:
        return
    kept = ~trainer.label_report().to_pandas()["is_label_issue"].to_numpy()
    assert np.array_equal(np.array(corrected["labels"])[kept], np.array(data["labels"])[kept])


def test_labels_may_have_another_name(runs):
    """A model of the user's whose labels are called otherwise, which upstream does not count."""

    class Targeted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.head = torch.nn.Embedding(40, 4)

        def forward(self, input_ids, target=None):
            logits = self.head(input_ids).mean(dim=1)
            return {"loss": torch.nn.functional.cross_entropy(logits, target), "logits": logits}

    def collate(items):
        batch = pad(items)
        ids = torch.nn.functional.pad(batch["input_ids"], (0, 12 - batch["input_ids"].shape[1]))
        return {"input_ids": ids, "target": batch["labels"]}

    ends = []
    for k in (1, 2):
        settings = {
            "remove_unused_columns": False,
            "gradient_accumulation_steps": k,
            "per_device_train_batch_size": 8 // k,
            "label_names": ["target"],
        }
        trainer = make_trainer(
            f"{runs}{k}", Targeted(), collator=collate, sat_reweight=False, sat_start_epoch=1, **settings
        )
        trainer.train()
        ends.append(weights(trainer)["head.weight"])
        report = trainer.label_report().to_pandas()
        assert report["given_label"].tolist() == text_data()["labels"] and (report["n_visits"] == 3).all()
    torch.testing.assert_close(*ends, atol=1e-5, rtol=0.0)
