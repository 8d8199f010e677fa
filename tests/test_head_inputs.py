"""Features behind logits: what the last layer of a classifier is given, whatever stands around it."""

import pytest
import torch
from everywhere_runs import pad_to_ten
from small import bert, distilbert, make_trainer, text_data, vit
from test_neighbors import CASES, one_sided_data
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from hf_sat import neighborhood
from hf_sat.head_inputs import HeadInputs


def decoder():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 32}
    return GPT2ForSequenceClassification(GPT2Config(**sizes, num_labels=2, pad_token_id=0))


def with_adapters():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2)
    return peft.get_peft_model(bert(dropout=0.0, classes=2), config)


TEXTS = {
    "input_ids": torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]]),
    "attention_mask": torch.tensor([[1, 1, 1, 0], [1] * 4]),
}
MODELS = {
    "bert": (lambda: bert(dropout=0.0, classes=2), lambda m: m.classifier, TEXTS),
    "distilbert": (lambda: distilbert(dropout=0.0, classes=2), lambda m: m.classifier, TEXTS),
    "vit": (lambda: vit(dropout=0.0, classes=2), lambda m: m.classifier, {"pixel_values": torch.randn(2, 3, 8, 8)}),
    "adapters": (with_adapters, lambda m: m.base_model.model.classifier.modules_to_save["default"], TEXTS),
    "decoder": (decoder, lambda m: m.score, TEXTS),
}


@pytest.mark.parametrize("name", MODELS)
def test_head_makes_the_logits_of_the_features(name):
    make, head_of, inputs = MODELS[name]
    model = make().train()
    with HeadInputs(model, num_classes=2) as watched:
        logits = model(**inputs).logits
        features = watched.of(logits)
    assert features.shape == (2, watched.width) and not features.requires_grad
    torch.testing.assert_close(head_of(model)(features), logits)


def test_what_evaluation_sees_is_not_kept():
    model = bert(dropout=0.0, classes=2)
    with HeadInputs(model, num_classes=2) as watched:
        logits = model.train()(**TEXTS).logits
        model.eval()(input_ids=torch.tensor([[1, 2]]))
        assert not watched.of(logits).isnan().any()
    model.train()(**TEXTS)
    assert watched._seen is None


@pytest.mark.parametrize("layers", [[], [nn.Linear(4, 2), nn.Linear(2, 2)], [nn.Conv2d(3, 2, 1)]])
def test_no_head_has_no_width(layers):
    with HeadInputs(nn.ModuleList(layers), num_classes=2) as watched:
        assert watched.width is None


class Restless(nn.Module):
    """Its logits are not those of any one position."""

    def __init__(self):
        super().__init__()
        self.num_labels = 2
        self.table, self.head = nn.Embedding(40, 6), nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        return {"logits": self.head(self.table(input_ids).flatten(0, 1)).view(*input_ids.shape, 2).mean(dim=1)}


def test_features_that_cannot_be_found_leave_the_prediction_alone(runs, monkeypatch):
    model = Restless()
    with HeadInputs(model, num_classes=2) as watched:
        assert watched.of(model.train()(TEXTS["input_ids"])["logits"]).isnan().all()
    monkeypatch.setattr(neighborhood, "LEAST_OF_CLASS", 20)
    trainer = make_trainer(runs, Restless(), text_data(48, classes=2))
    trainer.train()
    correction = trainer._correction
    assert correction.reads_features and not correction.neighborhood.votes.any()
    assert torch.isfinite(correction.state.targets.read(torch.arange(48))).all()


@pytest.mark.parametrize(("classes", "by_features"), [(2, True), (3, False)])
def test_two_classes_have_neighbors_by_features(runs, monkeypatch, classes, by_features):
    monkeypatch.setattr(neighborhood, "LEAST_OF_CLASS", 16)
    trainer = make_trainer(runs, bert(classes=classes), text_data(60, classes=classes))
    trainer.train()
    place = trainer._correction.neighborhood
    assert trainer._correction.reads_features == by_features
    assert place.positions.shape[1] == (16 if by_features else classes) and place.votes.any()
    assert not trainer.model.classifier._forward_hooks


AGAIN = {
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "second pass": {"sam": "sam", "sam_rho": 0.0},
}


@pytest.mark.parametrize("settings", AGAIN.values(), ids=AGAIN)
def test_features_are_seen_through_compilation_and_a_second_pass(tmp_path, settings):
    targets = []
    for more in ({}, settings):
        model, data = bert(dropout=0.0, classes=2), one_sided_data(classes=2)
        trainer = make_trainer(str(tmp_path), model, data, collator=pad_to_ten, **CASES["by features"][1], **more)
        trainer.train()
        assert trainer._correction.neighborhood.share > 0.1
        targets.append(trainer._correction.state.targets.read(torch.arange(len(data))))
    torch.testing.assert_close(*targets, atol=1e-5, rtol=0.0)
