"""Teachers: how they are given, what they are checked for, whose classes are whose, and columns of their own.

Protects: models, folders and weighted lists; precision; the order of classes by name; refusals that name both lists of
classes, the vocabulary or the image size; a head that nobody trained; columns `teacher_*` for another tokenizer or
image processor, padded by it or without it; checkpoints that hold what they hold without a teacher.
"""

import copy
import os

import datasets
import pytest
import torch
from safetensors.torch import load_file
from small import (
    CLASSES,
    arguments,
    assert_same_tensors,
    bert,
    bert_tokens,
    image_data,
    make_trainer,
    pad,
    text_data,
    token_data,
    vit,
    weights,
)
from test_distillation import (
    KD,
    STEP,
    TASKS,
    Items,
    Stream,
    assert_close,
    bart,
    by_hand,
    distil,
    pair_data,
    refused,
    run_task,
    sharpened,
    taught,
    teacher_for,
    windows_of,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AutoModel,
    BartConfig,
    BartForSequenceClassification,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
)

from hf_sat import SATSeq2SeqConfig, SATSeq2SeqTrainer
from hf_sat.teacher import class_order, load_teachers
from hf_sat.teacher_columns import TEACHER_KEY, TeacherCollator, add_teacher_columns

BATCH = pad(list(text_data(6)))


def named(names, model=None):
    """A model whose classes have these names."""
    model = bert(classes=len(names)) if model is None else model
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    return model


def logits(model, batch=BATCH):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(**batch).logits


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


def saved(folder, model):
    model.save_pretrained(folder)
    return str(folder)


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


# ---- other inputs ---------------------------------------------------------------------------------------------------


def wide_bert(**settings):
    """A teacher with a vocabulary of its own."""
    teacher = bert(seed=7)
    torch.manual_seed(7)
    return sharpened(BertForSequenceClassification(type(teacher.config)(**{**teacher.config.to_dict(), **settings})))


def large_vit():
    torch.manual_seed(7)
    config = vit().config.to_dict() | {"image_size": 16}
    return sharpened(ViTForImageClassification(ViTConfig(**config)))


OTHER_INPUTS = {
    "vocabulary": (bert, lambda: wide_bert(vocab_size=60), text_data, ["vocab_size is 60", "40"]),
    "images": (vit, large_vit, image_data, ["image_size is 16", "8"]),
}


@pytest.mark.parametrize("name", OTHER_INPUTS)
def test_a_teacher_that_cannot_read_the_students_inputs(runs, name):
    student, teacher, data, parts = OTHER_INPUTS[name]
    trainer = make_trainer(runs, student(), data(), taught(teacher()), None, kd_weight=0.5)
    refused(trainer, "teacher_model", *parts, "add_teacher_columns", "leave teacher_model")


def test_a_stream_that_does_not_tell_its_columns(runs):
    """A teacher's own columns are not found in it, and adding some would not help."""
    settings = {"kd_weight": 0.5, "label_correction": "none", "max_steps": 2}
    trainer = make_trainer(runs, bert(), Stream(), taught(wide_bert(vocab_size=60)), **settings)
    refused(trainer, "vocab_size is 60", "torch IterableDataset does not tell", r"datasets\.IterableDataset", "length")


class StreamWithColumns(Stream):
    """Ids in an order of their own, for a teacher that reads the student's words."""

    def __iter__(self):
        return (
            {**row, "key": key, "teacher_input_ids": row["input_ids"]} for key, row in enumerate(super().__iter__())
        )


BARE_STREAMS = {
    "alone": {"label_correction": "none"},
    "columns kept": {"label_correction": "none", "remove_unused_columns": False},
    "in a worker": {"label_correction": "none", "dataloader_num_workers": 1},
    "under correction": {"sample_id_column": "key", "sat_num_samples": 32},
}


@pytest.mark.parametrize("name", BARE_STREAMS)
def test_columns_in_a_stream_that_does_not_tell_them(runs, name):
    """They are not left unread in silence where the teacher could read the student's inputs."""
    data, settings = StreamWithColumns(), {"max_steps": 2, **BARE_STREAMS[name]}
    trainer = make_trainer(runs, bert(), data, taught(teacher_for()), kd_weight=0.5, **settings)
    parts = [
        r"\['teacher_input_ids'\]",
        "would not reach it",
        r"datasets\.IterableDataset",
        "length",
        "rename or remove",
    ]
    refused(trainer, *parts)
    assert trainer.train_dataset is data
    make_trainer(runs, bert(), data, **settings).train()


def test_another_vocabulary_of_targets_is_refused_in_short(runs):
    """The classes of a Seq2Seq model are its tokens, of which there are too many to name."""
    args = arguments(runs, SATSeq2SeqConfig, kd_weight=0.5)
    trainer = SATSeq2SeqTrainer(
        bart(), args, train_dataset=pair_data(), data_collator=pad, teacher_model=bart(seed=7, vocab_size=5000)
    )
    with pytest.raises(ValueError, match=r"teacher_model.*5000 classes.*40 classes") as error:
        trainer.train()
    assert len(str(error.value)) < 1000


WORDS = [f"w{number}" for number in range(40)]


def tokenizer(pad_id=0, shift=7):
    """Words of the student by other numbers."""
    numbers = {word: (number + shift) % 50 for number, word in enumerate(WORDS)}
    vocabulary = {word: number + 1 if number >= pad_id else number for word, number in numbers.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=_words({**vocabulary, "[PAD]": pad_id, "[UNK]": 55}), pad_token="[PAD]", unk_token="[UNK]"
    )


def _words(vocabulary):
    made = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    return made


def raw_texts(n=48):
    """The rows of `text_data`, as texts too."""
    data = text_data(n)
    return data.add_column("text", [" ".join(WORDS[token] for token in row) for row in data["input_ids"]])


def test_teacher_columns_of_texts_and_pairs():
    data, made = raw_texts(4), tokenizer()
    with_own = add_teacher_columns(data, made, "text")
    assert set(with_own.column_names) - set(data.column_names) == {
        f"teacher_{name}"
        for name in made("w1")  # what this tokenizer makes
    }
    assert with_own["teacher_input_ids"][:] == made(list(data["text"]))["input_ids"]
    assert with_own["input_ids"][:] == data["input_ids"][:]
    paired = add_teacher_columns(data, made, ["text", "text"], truncation=True, max_length=6)
    assert paired["teacher_input_ids"][:] == made(list(data["text"]), list(data["text"]), truncation=True,
                                                  max_length=6)["input_ids"]  # fmt: skip
    with pytest.raises(ValueError, match=r"columns='words'.*'text'"):
        add_teacher_columns(data, made, "words")


@pytest.mark.parametrize("processing", [True, False])
def test_teacher_columns_are_padded_apart(processing):
    made = tokenizer(pad_id=3)
    items = list(add_teacher_columns(raw_texts(4), made, "text").remove_columns("text"))
    collate = TeacherCollator(pad, made if processing else None, 3)
    batch = collate(items)
    theirs = batch.pop(TEACHER_KEY)
    expected = made.pad({"input_ids": [item["teacher_input_ids"] for item in items]}, return_tensors="pt")
    assert torch.equal(theirs["input_ids"], expected["input_ids"])
    assert torch.equal(theirs["attention_mask"], expected["attention_mask"])
    assert_same_tensors(batch, pad(list(raw_texts(4))))


class Translating(nn.Module):
    """A teacher with a vocabulary of its own that says what `model` says of the student's tokens."""

    def __init__(self, model, made):
        super().__init__()
        self.model, self.config = model, copy.deepcopy(model.config)
        self.config.vocab_size, self.config.pad_token_id = 60, made.pad_token_id
        self.numbers = torch.zeros(60, dtype=torch.long)
        for student, word in enumerate(WORDS):
            self.numbers[made.convert_tokens_to_ids(word)] = student

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return self.model(self.numbers[input_ids], attention_mask)


def pad_all(items):
    """A collator that keeps every key it is given, as people also write them."""
    kept = {name: [item[name] for item in items] for name in items[0] if name not in ("input_ids", "labels")}
    return {**pad(items), **kept}


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("removes", [True, False])
@pytest.mark.parametrize("processing", [True, False])
def test_a_teacher_with_another_tokenizer(runs, removes, processing, k):
    """The step is that of the same teacher over the student's own tokens, cut into any number of micro-batches."""
    made, inner = tokenizer(pad_id=3), teacher_for(double=True)
    data = add_teacher_columns(raw_texts(11), made, "text").remove_columns(["text"])
    model = sharpened(bert(dropout=0.0)).double()
    ends, _ = by_hand(model, inner, windows_of("bert", text_data(11)))
    settings = {**STEP, **KD, "per_device_train_batch_size": 8 // k, "gradient_accumulation_steps": k}
    settings["remove_unused_columns"] = removes
    own = {"teacher_processing_class": made} if processing else {}
    trainer = make_trainer(runs, model, data, taught(Translating(inner, made), **own), pad_all, **settings)
    trainer.train()
    assert_close(weights(trainer), ends)


def test_columns_that_the_teacher_does_not_take(runs):
    """A tokenizer makes token types for all, and DistilBERT has none."""
    data = text_data().map(
        lambda row: {f"teacher_{name}": row["input_ids"] for name in ("input_ids", "token_type_ids")}
    )
    trainer = distil(runs, teacher_for("distilbert"), bert(), data, num_train_epochs=1)
    assert [log for log in trainer.state.log_history if "kd/loss" in log]


@pytest.mark.parametrize("correction", ["sat", "none"])
@pytest.mark.parametrize("name, values", [("teacher_name", ["Ms X"] * 48), ("teacher_id", list(range(48)))])
def test_columns_that_only_sound_like_a_teachers(runs, name, values, correction):
    """Data of schools, say. Without a teacher they are what they were."""
    data = text_data().add_column(name, values)
    settings = {"label_correction": correction, "num_train_epochs": 1}
    trainer = make_trainer(runs, bert(), data, taught(teacher_for()), kd_weight=0.5, **settings)
    refused(trainer, name, "BertForSequenceClassification", "rename or remove")
    make_trainer(runs, bert(), data, **settings).train()


@pytest.mark.parametrize("kind", ["torch data set", "stream", "formatted"])
def test_own_columns_of_any_kind_of_data(tmp_path, kind):
    made, inner = tokenizer(), teacher_for()
    data = add_teacher_columns(raw_texts(32), made, "text").remove_columns(["text"])
    kinds = {
        "torch data set": lambda: Items(data),
        "stream": data.to_iterable_dataset,
        "formatted": lambda: data.with_format("torch"),
    }
    settings = {"train_sampling_strategy": "sequential", "max_steps": 4, "label_correction": "none"}
    table = distil(str(tmp_path / "table"), Translating(inner, made), bert(), data, **settings)
    collate = (lambda items: pad([{k: v.tolist() for k, v in item.items()} for item in items])) if kind == "formatted" \
        else pad  # fmt: skip
    other = make_trainer(
        str(tmp_path / "other"), bert(), kinds[kind](), taught(Translating(inner, made)), collate, kd_weight=0.5,
        **settings,
    )  # fmt: skip
    other.train()
    assert_same_tensors(weights(table), weights(other))


def test_own_columns_with_correction_evaluation_and_resume(tmp_path):
    """The evaluation set may have those columns or not; the run after a stop ends where the whole one does."""
    made, inner = tokenizer(), teacher_for()
    data = add_teacher_columns(raw_texts(), made, "text").remove_columns(["text"])
    settings = {"sat_start_epoch": 0.5, "sat_momentum": 0.5, "eval_strategy": "epoch", "sam": "sam"}
    settings |= {"save_strategy": "steps", "save_steps": 4, "eval_dataset": data.select(range(8))}

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 4

    whole = distil(str(tmp_path / "whole"), Translating(inner, made), bert(), data, **settings)
    distil(str(tmp_path / "parts"), Translating(inner, made), bert(), data, callbacks=[Stop()], **settings)
    rest = make_trainer(
        str(tmp_path / "parts"), bert(), data, taught(Translating(inner, made)), kd_weight=0.5, **settings
    )
    rest.train(resume_from_checkpoint=True)
    assert_same_tensors(weights(whole), weights(rest))
    assert whole.label_report().to_pandas().equals(rest.label_report().to_pandas())
    settings["eval_dataset"] = text_data(8)
    bare = distil(str(tmp_path / "bare"), Translating(inner, made), bert(), data, **settings)
    assert_same_tensors(weights(whole), weights(bare))


def test_a_teacher_with_images_of_another_size(runs):
    """A hand-made teacher column beside the student's pixels, under the default collator."""
    data, inner = image_data(16), teacher_for("vit")

    class Large(nn.Module):
        config = large_vit().config

        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, pixel_values):
            assert pixel_values.shape[1:] == (3, 16, 16)
            return self.inner(pixel_values[..., ::2, ::2])

    def enlarge(pictures):
        wide = [torch.as_tensor(each).repeat_interleave(2, -1).repeat_interleave(2, -2) for each in pictures]
        return {"pixel_values": [each.numpy() for each in wide]}

    own = add_teacher_columns(data, enlarge, "pixel_values")
    settings = {**STEP, "per_device_train_batch_size": 8}
    ends = []
    for teacher, rows in ((Large(), own), (inner, data)):
        trainer = make_trainer(runs, vit(), rows, taught(teacher), None, kd_weight=0.5, **settings)
        trainer.train()
        ends.append(weights(trainer))
    assert_same_tensors(*ends)


def test_image_processors_make_teacher_columns():
    image = pytest.importorskip("PIL.Image")
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    pictures = [image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 120, 255)]
    data = datasets.Dataset.from_dict({"image": pictures, "labels": [0, 1, 2]})
    made = add_teacher_columns(data, processor, "image").with_format("torch")
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(torch.stack(list(made["teacher_pixel_values"])), expected.to(torch.float32))


@pytest.mark.parametrize("by_name", [True, False])
def test_padding_of_a_teacher_that_looks_for_it(tmp_path, runs, by_name):
    """A decoder that classifies by the last token that is no padding; without a tokenizer its config tells which."""
    torch.manual_seed(7)
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": CLASSES, "pad_token_id": 59}
    teacher = GPT2ForSequenceClassification(GPT2Config(vocab_size=60, **sizes))
    data = add_teacher_columns(raw_texts(16), tokenizer(), "text").remove_columns(["text"])
    alone = []
    with torch.no_grad():
        for row in data:
            alone.append(copy.deepcopy(teacher).eval()(torch.tensor([row["teacher_input_ids"]])).logits)
    given = saved(tmp_path / "teacher", teacher) if by_name else teacher
    model = bert(dropout=0.0)
    settings = {**STEP, "per_device_train_batch_size": 16, "kd_loss": "mse", "kd_weight": 0.5}
    trainer = make_trainer(runs, model, data, taught(given), **settings)
    expected = (logits(model, pad(list(data))) - torch.cat(alone)).square().mean()
    trainer.train()
    (log,) = [log for log in trainer.state.log_history if "loss" in log]
    assert log["kd/loss"] == pytest.approx(float(expected), rel=1e-4)


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
