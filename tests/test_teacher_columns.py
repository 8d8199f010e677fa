"""Teachers that read other inputs than the student, from columns of their own."""

import copy

import datasets
import pytest
import torch
from distillation_runs import (
    KD,
    STEP,
    Items,
    Stream,
    assert_close,
    bart,
    by_hand,
    distil,
    pair_data,
    refused,
    sharpened,
    taught,
    teacher_for,
    windows_of,
)
from small import CLASSES, arguments, assert_same_tensors, bert, image_data, make_trainer, pad, text_data, vit, weights
from teacher_runs import Translating, logits, raw_texts, saved, tokenizer
from torch import nn
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
)

from hf_sat import SATSeq2SeqConfig, SATSeq2SeqTrainer
from hf_sat.teacher_columns import TEACHER_KEY, TeacherCollator, add_teacher_columns


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
