"""Teachers: how they are given, loaded and kept, and the order of their classes.

Protects: classes matched by name; models, folders, weighted lists and precisions; no teacher in checkpoints.
"""

import copy
import os

import datasets
import pytest
import torch
from distillation_runs import KD, TASKS, by_hand, distil, refused, run_task, sharpened, taught, teacher_for, windows_of
from safetensors.torch import load_file
from small import CLASSES, assert_same_tensors, bert, bert_tokens, make_trainer, pad, text_data, token_data, weights
from teacher_runs import BATCH, logits, saved
from torch import nn
from transformers import AutoModel, BartConfig, BartForSequenceClassification, BertForMaskedLM, BertModel

from hf_sat.teacher import class_order, load_teachers


def named(names, model=None):
    """A model whose classes have these names."""
    model = bert(classes=len(names)) if model is None else model
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    return model


# ---- the order of classes -------------------------------------------------------------------------------------------


ABC, UNNAMED = ["anger", "joy", "fear", "shame"], [f"LABEL_{i}" for i in range(4)]
ORDERS = {
    "the same": (ABC, ABC, None),
    "permuted": (ABC, ["joy", "shame", "anger", "fear"], [2, 0, 3, 1]),
    "in other letters": (ABC, ["Anger", "JOY", "fear", "Shame"], None),
    "permuted in other letters": (ABC, ["Joy", "SHAME", "Anger", "fear"], [2, 0, 3, 1]),
    "letters tell them apart": (["a", "A"], ["A", "a"], [1, 0]),
    "student unnamed": (UNNAMED, ABC, None),
    "teacher unnamed": (ABC, UNNAMED, None),
    "numbers": (ABC, ["0", "1", "2", "3"], None),
    "numbers permuted": (["0", "1", "2", "3"], ["3", "1", "2", "0"], [3, 1, 2, 0]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_classes_are_matched_by_name(name):
    ours, theirs, order = ORDERS[name]
    found = class_order(named(ours), named(theirs))
    assert found is None if order is None else found.tolist() == order
    if order is not None:
        assert [theirs[number].casefold() for number in order] == [name.casefold() for name in ours]


OTHER = {
    "one differs": (ABC, ["anger", "joy", "fear", "pride"]),
    "one more": (ABC, [*ABC, "pride"]),
    "one less": (ABC, ABC[:3]),
    "unnamed, of another number": (UNNAMED, ["a", "b"]),
    "alike in other letters": (["a", "A"], ["a", "b"]),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_classes_are_refused_naming_both_lists(runs, name):
    ours, theirs = OTHER[name]
    student, teacher = named(ours), named(theirs)
    lists = [str(each).replace("[", r"\[").replace("]", r"\]") for each in (theirs, ours)]
    trainer = make_trainer(runs, student, text_data(classes=2), taught(teacher), kd_weight=0.5)
    refused(trainer, "teacher_model", *lists, "leave teacher_model")


def test_a_permuted_teacher_teaches_what_the_same_in_order_does(tmp_path):
    """Not only the loss: agreement too is of classes, not of numbers."""
    order, ends, logs = [2, 0, 3, 1], [], []
    plain = named(ABC, teacher_for())
    other = named([ABC[i] for i in order], teacher_for())
    with torch.no_grad():
        other.classifier.weight.copy_(plain.classifier.weight[order])
        other.classifier.bias.copy_(plain.classifier.bias[order])
    for teacher in (plain, other, [plain, other]):
        trainer = distil(str(tmp_path / str(len(ends))), teacher, named(ABC), num_train_epochs=1)
        ends.append(weights(trainer))
        logs.append([log["kd/agreement"] for log in trainer.state.log_history if "loss" in log])
    torch.testing.assert_close(ends[1], ends[0], atol=1e-6, rtol=0.0)
    torch.testing.assert_close(ends[2], ends[0], atol=1e-6, rtol=0.0)
    assert logs[0] == logs[1] == logs[2]


# ---- how they are given ---------------------------------------------------------------------------------------------


def bart_classifier():
    torch.manual_seed(7)
    sides = {f"{s}_{n}": v for s in ("encoder", "decoder") for n, v in
             {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()}  # fmt: skip
    config = {"d_model": 16, "max_position_embeddings": 32, "num_labels": CLASSES, "eos_token_id": 2, **sides}
    return BartForSequenceClassification(BartConfig(vocab_size=40, **config))


@pytest.mark.parametrize("task", TASKS)
def test_a_teacher_by_the_name_of_its_folder(tmp_path, task):
    """Weights, class and precision are those of the checkpoint; it says what the model said."""
    model = teacher_for(task)
    (teacher,) = load_teachers(saved(tmp_path / "teacher", model), TASKS[task][0]()).models
    assert type(teacher) is type(model) and not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    batch = TASKS[task][2](list(TASKS[task][1](6)))
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    assert torch.equal(logits(teacher, batch), logits(model, batch))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_precision_of_what_is_loaded(tmp_path, dtype):
    folder = saved(tmp_path / "teacher", teacher_for())
    teachers = load_teachers(folder, bert(), dtype)
    assert {p.dtype for p in teachers.models[0].parameters()} == {getattr(torch, dtype)}
    half = saved(tmp_path / "half", teacher_for().to(torch.bfloat16))
    assert next(load_teachers(half, bert()).models[0].parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("task", ["bert", "vit"])
def test_a_teacher_in_half_precision(runs, task):
    """Pixels come to it in its own precision; its logits come back to the student's loss."""
    make, data, _ = TASKS[task]
    collate = pad if task == "bert" else None
    teacher = teacher_for(task).to(torch.bfloat16)
    trainer = make_trainer(runs, make(), data(), taught(teacher), collate, kd_weight=0.5, logging_steps=1)
    trainer.train()
    losses = [log["kd/loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 18 and all(0 < loss < 100 for loss in losses)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {p.dtype for p in teacher.parameters()} == {torch.bfloat16}


def test_by_name_is_as_by_model(tmp_path):
    """To the bit: loading draws no random number that the student would miss."""
    folder = saved(tmp_path / "teacher", teacher_for())
    ends = [weights(distil(str(tmp_path / str(i)), given, bert())) for i, given in enumerate((teacher_for(), folder))]
    assert_same_tensors(*ends)


def test_several_teachers_with_weights(tmp_path):
    """Their logits are averaged by weight; a list without weights counts all alike."""
    one, two = teacher_for(), sharpened(bert(seed=11))
    folder = saved(tmp_path / "two", two)
    labels = BATCH["labels"]
    for given, shares in (
        ([(one, 3), (folder, 1)], (0.75, 0.25)),
        ([one, folder], (0.5, 0.5)),
        (((one, 1.0), two), (0.5, 0.5)),
        ((one, 5.0), (1.0, 0.0)),
    ):
        teachers = load_teachers(given, bert())
        found = teachers.logits(BATCH, labels, torch.device("cpu"))
        expected = shares[0] * logits(one) + shares[1] * logits(two)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_step_of_two_teachers_is_the_one_written_by_hand(runs):
    class Mean(nn.Module):
        def __init__(self, *models):
            super().__init__()
            self.models = nn.ModuleList(models)

        def forward(self, **inputs):
            one, two = (model(**inputs) for model in self.models)
            one.logits = 0.8 * one.logits + 0.2 * two.logits
            return one

    data, model = text_data(11), sharpened(bert(dropout=0.0)).double()
    one, two = teacher_for(double=True), sharpened(bert(seed=11)).double()
    ends, _ = by_hand(model, Mean(one, two), windows_of("bert", data))
    trainer = run_task(runs, "bert", 2, model, [(one, 4), (two, 1)], data, **KD)
    # The mean of several is taken in float32.
    torch.testing.assert_close(weights(trainer), ends, atol=1e-6, rtol=1e-6)


class Silent(nn.Module):
    """A teacher of the user's that says nothing of its classes."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(40, classes)

    def forward(self, input_ids):
        return {"logits": self.embedding(input_ids).mean(dim=1)}


def test_a_module_of_the_users(runs):
    trainer = distil(runs, Silent())
    assert all("kd/loss" in log for log in trainer.state.log_history if "loss" in log)


class Breaking(nn.Module):
    """A teacher that says something else than numbers from a call on, where there are labels to say it of."""

    def __init__(self, value, call):
        super().__init__()
        self.model, self.value, self.call, self.calls = teacher_for(), value, call, 0

    def forward(self, input_ids, attention_mask=None):
        logits, self.calls = self.model(input_ids, attention_mask).logits, self.calls + 1
        if self.calls > self.call:
            logits[0] = torch.tensor(self.value)
        return {"logits": logits}


NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [[NAN] * 4, [0.0, NAN, 0.0, 0.0], [0.0, INF, 0.0, 0.0], [-INF] * 4]


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_a_teacher_that_says_no_numbers(runs, tmp_path, value, cached):
    """In the first batch before anything is learned from it."""
    settings = {"kd_weight": 0.5, "kd_cache_dir": str(tmp_path / "cache") if cached else None}
    trainer = make_trainer(runs, trainer=taught(Breaking(value, 0)), train_sampling_strategy="sequential", **settings)
    refused(trainer, "teacher_model", "NaN", "leave teacher_model and kd_weight out")


def test_a_teacher_that_breaks_later_is_found_by_the_next_log(runs):
    """The log is every two steps, and what is wrong in step 3 and no more in step 4 is not forgotten."""
    teacher = Breaking([NAN] * 4, 2)
    trainer = make_trainer(runs, trainer=taught(teacher), kd_weight=0.5)
    with pytest.raises(ValueError, match=r"teacher_model.*NaN or infinite, seen up to step 4"):
        trainer.train()
    assert trainer.state.global_step == teacher.calls == 4


def test_classes_that_a_teacher_rules_out_are_no_such_thing(runs):
    assert distil(runs, Breaking([0.0, -INF, 0.0, 1.0], 0)).state.global_step == 18


NO_TEACHER = {
    "a number": (3, ["int", "no model"]),
    "an empty list": ([], [r"\[\]", "no teacher"]),
    "a weight of zero": ([(bert(seed=5), 0)], ["weight 0", "> 0"]),
    "a negative weight": ([(bert(seed=5), 1.0), (bert(seed=6), -1.0)], [r"weight -1\.0"]),
    "a weight that is none": ([(bert(seed=5), float("nan"))], ["weight nan"]),
    "several in one": ([[bert(seed=5), bert(seed=6)]], ["list", "no model"]),
}


@pytest.mark.parametrize("name", NO_TEACHER)
def test_what_is_no_teacher(runs, name):
    given, parts = NO_TEACHER[name]
    refused(make_trainer(runs, trainer=taught(given), kd_weight=0.5), "teacher_model", *parts)


def test_a_teacher_that_shares_weights_with_the_student(runs):
    student = bert()
    refused(make_trainer(runs, student, trainer=taught(student), kd_weight=0.5), "shares weights", "deepcopy")
    assert student.training or all(parameter.requires_grad for parameter in student.parameters())
    teacher = bert(seed=7)
    teacher.bert.embeddings = student.bert.embeddings
    refused(make_trainer(runs, student, trainer=taught(teacher), kd_weight=0.5), "shares weights")
    distil(runs, copy.deepcopy(student), student, num_train_epochs=1)


def test_the_base_of_an_adapted_student_is_no_teacher(runs):
    peft = pytest.importorskip("peft")
    base = bert()
    model = peft.get_peft_model(base, peft.LoraConfig("SEQ_CLS", r=2, target_modules=["query"]))
    refused(make_trainer(runs, model, trainer=taught(base), kd_weight=0.5), "shares weights")


@pytest.mark.parametrize("task, kind, modules", [("bert", "SEQ_CLS", "query"), ("bart", "SEQ_2_SEQ_LM", "q_proj")])
def test_an_adapted_teacher(tmp_path, task, kind, modules):
    """LoRA around it changes neither its inputs nor its classes."""
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(teacher_for(task), peft.LoraConfig(kind, r=2, target_modules=[modules]))
    make, data, _ = TASKS[task]
    ends = [
        weights(run_task(str(tmp_path / str(i)), task, 1, make(), given, data(16), **KD))
        for i, given in enumerate((adapted, teacher_for(task)))
    ]
    assert_same_tensors(*ends)


def test_a_head_that_nobody_trained(tmp_path, runs):
    """The checkpoint of an encoder, under a config that names a head; and of an encoder alone."""
    folder = saved(tmp_path / "teacher", bert(seed=7).bert)
    config = bert().config
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(folder)
    refused(make_trainer(runs, trainer=taught(folder), kd_weight=0.5), "teacher_model", "classifier", "not trained")


WRONG_HEADS = {"encoder": BertModel, "masked language model": BertForMaskedLM}


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("correction", ["sat", "none"])
@pytest.mark.parametrize("name", WRONG_HEADS)
def test_a_head_of_another_kind_is_named_as_the_teachers(tmp_path, runs, name, correction, by_name):
    """Such is what a pretrained checkpoint holds before anyone has fine-tuned it."""
    teacher = WRONG_HEADS[name](bert().config)
    given = saved(tmp_path / "teacher", teacher) if by_name else teacher
    trainer = make_trainer(runs, trainer=taught(given), kd_weight=0.5, label_correction=correction)
    refused(trainer, "teacher_model", type(teacher).__name__)


@pytest.mark.parametrize("cached", [False, True])
def test_logits_of_another_width(runs, cached):
    """Where neither side names its classes, the first logits tell."""
    settings = {"kd_cache_dir": runs + "-cache"} if cached else {}
    trainer = make_trainer(runs, trainer=taught(Silent(classes=6)), kd_weight=0.5, **settings)
    refused(trainer, "teacher_model", "6 classes", "BertForSequenceClassification 4")


def test_an_encoder_decoder_that_classifies(tmp_path):
    """Such as bart-large-mnli: it makes its decoder's inputs of the sentence."""
    data = datasets.Dataset.from_dict(
        {"input_ids": [[*row["input_ids"], 2] for row in text_data()], "labels": text_data()["labels"]}
    )
    trainer = distil(str(tmp_path), bart_classifier(), bert(), data, num_train_epochs=1)
    assert [log for log in trainer.state.log_history if "kd/loss" in log]


def test_a_teacher_on_a_device_by_name(runs):
    trainer = distil(runs, teacher_for(), kd_teacher_device="cpu", num_train_epochs=1)
    assert [log for log in trainer.state.log_history if "kd/loss" in log]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


STUDENTS = {
    "examples": (bert, text_data, {"label_correction": "none"}),
    "correcting": (bert, text_data, {"sat_start_epoch": 0, "sat_momentum": 0.5}),
    "tokens": (bert_tokens, token_data, {"label_correction": "none"}),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_checkpoint_holds_what_it_holds_without_a_teacher(tmp_path, name):
    """The same files of the same size, tensor by tensor; none of the teacher's weights, in the optimizer either."""
    make, data, settings = STUDENTS[name]
    settings = {**settings, "save_strategy": "epoch", "num_train_epochs": 1, "optim": "adamw_torch"}
    alone = make_trainer(str(tmp_path / "alone"), make(), data(), **settings)
    alone.train()
    teacher = teacher_for("tokens" if name == "tokens" else "bert")
    trainer = distil(str(tmp_path / "taught"), teacher, make(), data(), **settings)
    last = f"checkpoint-{alone.state.global_step}"
    files = [sorted(os.listdir(tmp_path / part / last)) for part in ("alone", "taught")]
    assert files[0] == files[1]
    tensors = [load_file(tmp_path / part / last / "model.safetensors") for part in ("alone", "taught")]
    assert tensors[0].keys() == tensors[1].keys()
    theirs = [value for value in teacher.state_dict().values() if value.unique().numel() > 1]
    assert not [key for key, value in tensors[1].items() if any(torch.equal(value, each) for each in theirs)]
    for file in files[0]:
        sizes = [os.path.getsize(tmp_path / part / last / file) for part in ("alone", "taught")]
        if file.endswith((".safetensors", ".pt", ".pth")):
            assert sizes[0] == sizes[1], file
    trainer.save_model(str(tmp_path / "model"))
    again = AutoModel.from_pretrained(str(tmp_path / "model"))
    assert again.config.to_dict()["hidden_size"] == 16
    groups = torch.load(tmp_path / "taught" / last / "optimizer.pt")["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))
