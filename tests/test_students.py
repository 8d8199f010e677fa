"""Students cut from a teacher: which layers, whose weights, and what is refused."""

import copy

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from small import assert_same_tensors
from torch import nn

from hf_sat.students import create_student, spaced_layers

LAYERS = 5
SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": LAYERS}
TEXT = {**SIZE, "vocab_size": 40, "max_position_embeddings": 40, "pad_token_id": 0, "num_labels": 3}
IMAGE = {**SIZE, "image_size": 8, "patch_size": 4, "num_labels": 3}
DISTIL = {"dim": 16, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 24}
MODERN = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}

# model class, settings of its config, where its layers are
MODELS = {
    "bert": (hf.BertForSequenceClassification, TEXT, "bert.encoder.layer"),
    "bert tokens": (hf.BertForTokenClassification, TEXT, "bert.encoder.layer"),
    "bert bare": (hf.BertModel, TEXT, "encoder.layer"),
    "bert tied": (hf.BertForMaskedLM, TEXT, "bert.encoder.layer"),
    "roberta": (hf.RobertaForSequenceClassification, TEXT, "roberta.encoder.layer"),
    "xlm-roberta": (hf.XLMRobertaForTokenClassification, TEXT, "roberta.encoder.layer"),
    "camembert": (hf.CamembertForSequenceClassification, TEXT, "roberta.encoder.layer"),
    "distilbert": (hf.DistilBertForSequenceClassification, TEXT | DISTIL, "distilbert.transformer.layer"),
    "electra": (hf.ElectraForSequenceClassification, {**TEXT, "embedding_size": 8}, "electra.encoder.layer"),
    "mpnet": (hf.MPNetForSequenceClassification, TEXT, "mpnet.encoder.layer"),
    "deberta": (hf.DebertaForSequenceClassification, TEXT, "deberta.encoder.layer"),
    "deberta-v2": (hf.DebertaV2ForTokenClassification, {**TEXT, **RELATIVE}, "deberta.encoder.layer"),
    "modernbert": (hf.ModernBertForSequenceClassification, {**TEXT, **MODERN}, "model.layers"),
    "longformer": (
        hf.LongformerForSequenceClassification,
        {**TEXT, "attention_window": [4, 8, 8, 4, 8]},
        "longformer.encoder.layer",
    ),
    "vit": (hf.ViTForImageClassification, IMAGE, None),
    "deit": (hf.DeiTForImageClassificationWithTeacher, IMAGE, None),
    "beit": (hf.BeitForImageClassification, IMAGE, None),
    "dinov2": (hf.Dinov2ForImageClassification, IMAGE, None),
    "dinov2 bare": (hf.Dinov2Model, IMAGE, None),
}
every_model = pytest.mark.parametrize("name", MODELS)
quick = settings(max_examples=200, deadline=None, database=None)


def model(name="bert", seed=0, **config):
    """A small model whose weights and biases are all drawn, so that each of them shows in the logits."""
    torch.manual_seed(seed)
    cls, values, _ = MODELS[name]
    built = cls(cls.config_class(**{**values, **config})).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    return built


def inputs(name):
    generator = torch.Generator().manual_seed(1)
    if MODELS[name][2] is None:
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": torch.randint(3, 40, (2, 8), generator=generator), "attention_mask": mask}


def outputs(built, name):
    with torch.no_grad():
        return built(**inputs(name))[0]


def stack_of(built, name):
    if (path := MODELS[name][2]) is not None:
        return path
    lists = [key for key, module in built.named_modules() if isinstance(module, nn.ModuleList)]
    assert len(lists) == 1
    return lists[0]


def by_hand(built, name, kept):
    """The teacher itself with layers taken out of its list, as notebooks do it."""
    cut = copy.deepcopy(built)
    path = stack_of(cut, name)
    parent, _, leaf = path.rpartition(".")
    layers = cut.get_submodule(path)
    setattr(cut.get_submodule(parent), leaf, nn.ModuleList([layers[layer] for layer in kept]))
    cut.config.num_hidden_layers = len(kept)
    return cut


def storages(built):
    return {tensor.untyped_storage().data_ptr() for tensor in [*built.parameters(), *built.buffers()]}


# ---- the same function as the teacher's layers ----


@every_model
def test_all_layers_give_the_teachers_logits_and_leave_it_alone(name):
    teacher = model(name)
    before, config = copy.deepcopy(teacher.state_dict()), teacher.config.to_dict()
    random_state = torch.get_rng_state()
    student = create_student(teacher, LAYERS)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert type(student) is type(teacher) and student.config.to_dict() == config == teacher.config.to_dict()
    assert_same_tensors(student.state_dict(), before)
    assert_same_tensors(teacher.state_dict(), before)
    assert not storages(student) & storages(teacher)
    assert torch.equal(outputs(student, name), outputs(teacher, name))


@every_model
@pytest.mark.parametrize("layers, kept", [(3, [0, 2, 4]), ((0, 3, 2), [0, 3, 2]), (1, [0])])
def test_a_student_is_its_teacher_without_the_other_layers(name, layers, kept, tmp_path):
    teacher = model(name)
    student = create_student(teacher, layers)
    assert len(student.get_submodule(stack_of(student, name))) == student.config.num_hidden_layers == len(kept)
    assert torch.equal(outputs(student, name), outputs(by_hand(teacher, name, kept), name))
    assert not torch.equal(outputs(student, name), outputs(teacher, name))
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path)
    assert_same_tensors(again.state_dict(), student.state_dict())
    assert torch.equal(outputs(again, name), outputs(student, name))


@quick
@given(total=st.integers(1, 60), data=st.data())
def test_a_number_means_evenly_spaced_layers(total, data):
    count = data.draw(st.integers(1, total))
    kept = spaced_layers(total, count)
    assert len(kept) == count and kept[0] == 0 and kept == sorted(set(kept)) and kept[-1] < total
    assert count == 1 or kept[-1] == total - 1
    gaps = np.diff(kept)
    assert count < 2 or max(gaps) - min(gaps) <= 1


def test_distilberts_layers_are_the_choice_for_half():
    assert spaced_layers(12, 6) == [0, 2, 4, 7, 9, 11]


# ---- what the student is besides its weights ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_and_attention_stay(dtype):
    teacher = model().to(dtype)
    teacher.set_attn_implementation("eager")
    teacher.classifier.float()
    student = create_student(teacher, 2)
    assert student.dtype == dtype and student.classifier.weight.dtype == torch.float32
    assert student.config._attn_implementation == "eager"


def test_labels_and_the_number_of_layers_are_in_the_config():
    names = {0: "a", 1: "b", 2: "c"}
    student = create_student(model("distilbert", id2label=names, label2id={"a": 0, "b": 1, "c": 2}), 2)
    assert student.config.n_layers == student.config.num_hidden_layers == 2
    assert student.config.id2label == names and student.config.label2id["c"] == 2


def test_a_student_is_ready_to_train_whatever_its_teacher_was():
    teacher = model().train().requires_grad_(False)
    teacher.gradient_checkpointing_enable()
    teacher.enable_input_require_grads()
    student = create_student(teacher, 3)
    assert not student.training and teacher.training and not student.is_gradient_checkpointing
    assert all(weight.requires_grad and weight.is_leaf for weight in student.parameters())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    before = copy.deepcopy(teacher.state_dict())
    labels = torch.tensor([0, 2])
    student(**inputs("bert"), labels=labels).loss.backward()
    torch.optim.SGD(student.parameters(), 0.1).step()
    assert all(weight.grad is not None for weight in student.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())
    assert_same_tensors(teacher.state_dict(), before)
    student.gradient_checkpointing_enable()
    student.train()(**inputs("bert"), labels=labels).loss.backward()


def test_tied_weights_are_tied_to_each_other_and_not_to_the_teacher():
    teacher = model("bert tied")
    student = create_student(teacher, 2)
    embeddings = student.get_input_embeddings().weight
    assert student.get_output_embeddings().weight is embeddings
    assert embeddings.data_ptr() != teacher.get_input_embeddings().weight.data_ptr()
    untied = create_student(model("bert tied", tie_word_embeddings=False), 2)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


def test_layers_know_their_new_number():
    student = create_student(model(), [1, 4])
    assert [layer.attention.self.layer_idx for layer in student.bert.encoder.layer] == [0, 1]


def test_settings_per_layer_follow_their_layers():
    teacher = model("longformer")
    student = create_student(teacher, [0, 3])
    assert student.config.attention_window == [4, 4] and teacher.config.attention_window == [4, 8, 8, 4, 8]
    modern = model("modernbert")
    kept = create_student(modern, [0, 1, 3]).config.layer_types
    assert kept == [modern.config.layer_types[layer] for layer in (0, 1, 3)]
    assert len(set(kept)) == 2


def test_vision_models_name_the_stages_they_have():
    config = create_student(model("dinov2"), 2).config
    assert config.stage_names == ["stem", "stage1", "stage2"]
    assert config.out_features == ["stage2"] and config.out_indices == [2]


def test_a_bare_encoder_without_pooler_keeps_none():
    torch.manual_seed(0)
    teacher = hf.BertModel(hf.BertConfig(**TEXT), add_pooling_layer=False).eval()
    student = create_student(teacher, [0, 2, 4])
    assert student.pooler is None
    assert torch.equal(outputs(student, "bert"), outputs(by_hand(teacher, "bert bare", [0, 2, 4]), "bert"))


def test_a_teacher_in_a_folder_is_the_class_its_config_names(tmp_path):
    teacher = model("roberta")
    teacher.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        student = create_student(folder, 3)
        assert_same_tensors(student.state_dict(), create_student(teacher, 3).state_dict())
    hf.RobertaConfig(**TEXT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"teacher='.*': transformers has no class ''; load the model"):
        create_student(tmp_path, 3)


def test_weights_shared_by_hand_stay_shared():
    teacher = model()
    teacher.bert.encoder.layer[2].output.dense.weight = teacher.bert.encoder.layer[0].output.dense.weight
    first, second = create_student(teacher, [0, 2]).bert.encoder.layer
    assert first.output.dense.weight is second.output.dense.weight


# ---- refusals ----


@pytest.mark.parametrize(
    "layers", [0, 6, -1, True, 2.0, "3", None, [], [0, 5], [0, -1], [1, 1], [True], [0, 1.0], np.array([0.5]), "012"]
)
def test_wrong_layers_are_refused_by_name(layers):
    with pytest.raises(ValueError, match=r"layers=.*: give a number from 1 to 5, or some of 0 to 4, each once"):
        create_student(model(), layers)


@pytest.mark.parametrize("layers", [np.int64(2), range(0, 5, 4), np.array([0, 4]), (0, 4), {0: "", 4: ""}])
def test_whole_numbers_of_any_kind_are_taken(layers):
    assert_same_tensors(create_student(model(), layers).state_dict(), create_student(model(), [0, 4]).state_dict())


def small(cls, **config):
    return lambda: cls(cls.config_class(**config))


BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 40, "max_position_embeddings": 40}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
T5 = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16, "d_kv": 8, "vocab_size": 40}
SWIN = {"image_size": 8, "patch_size": 1, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2}
CONVNEXT = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2}
CLIP_PART = {**SIZE, "projection_dim": 8}
CLIP = {
    "text_config": {**CLIP_PART, "vocab_size": 40},
    "vision_config": {**CLIP_PART, "image_size": 8, "patch_size": 4},
}
ALBERT = {**TEXT, "embedding_size": 8}
XLM = {"vocab_size": 40, "emb_dim": 16, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 40}


def on_meta():
    with torch.device("meta"):
        return model()


def half_on_meta():
    built = model()
    built.classifier.to("meta")
    return built


def quantised():
    built = model()
    built.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    return built


class Packed(nn.Parameter):
    """As quantisers keep a weight: a parameter of their own class."""


def packed():
    built = model()
    weight = built.bert.encoder.layer[1].output.dense.weight
    built.bert.encoder.layer[1].output.dense.weight = Packed(weight.data)
    return built


def zero3():
    built = model()
    built.bert.pooler.dense.weight.ds_id = 7
    return built


def with_peft():
    return peft.get_peft_model(model(), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))


def with_adapter():
    built = model()
    built.add_adapter(peft.LoraConfig(target_modules=["query"]))
    return built


def with_own_head():
    built = model()
    built.classifier = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3))
    return built


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def with_own_linear():
    built = model()
    built.classifier = Doubled(16, 3)
    return built


@pytest.mark.parametrize(
    "make, message",
    [
        (small(hf.BartForSequenceClassification, **BART), "BartForSeq.*encoder and a decoder.*BERT, RoBERTa"),
        (small(hf.T5ForSequenceClassification, **T5), "encoder and a decoder.*one stack of layers work"),
        (small(hf.SwinForImageClassification, **SWIN), "Swin.*stages of different widths"),
        (small(hf.ConvNextForImageClassification, **CONVNEXT), "ConvNext.*stages of different widths"),
        (small(hf.CLIPModel, **CLIP), "CLIPModel.*no num_hidden_layers"),
        (small(hf.AlbertForSequenceClassification, **ALBERT), "Albert.*0 lists of num_hidden_layers=5 layers"),
        (
            small(hf.FlaubertModel, **XLM),
            "Flaubert.*4 lists of num_hidden_layers=3 layers, not 1",
        ),
        (small(hf.EsmForSequenceClassification, **TEXT), "Esm.*fewer layers has other parts: .*contact_head"),
        (small(hf.BeitForSemanticSegmentation, **{**IMAGE, "out_indices": [1, 2, 3, 4]}), "head reads inner layers"),
        (small(hf.Dinov2Backbone, **IMAGE), "Dinov2Backbone.*head reads inner layers"),
        (on_meta, "weights are on meta; load all of them on one device"),
        (half_on_meta, "weights are on cpu, meta; load all of them on one device"),
        (quantised, "quantised; load it without quantization_config"),
        (packed, r"layer\.1\.output\.dense\.weight is quantised or sharded"),
        (zero3, r"pooler\.dense\.weight is quantised or sharded"),
        (with_peft, "PeftModelFor.*adapters.*merge_and_unload"),
        (with_adapter, "BertForSeq.*adapters.*merge_and_unload"),
        (with_own_head, "other parts: classifier, .*undo changes made after loading"),
        (with_own_linear, "other parts: classifier; undo changes made after loading"),
        (lambda: nn.DataParallel(model()), "teacher='DataParallel': give a transformers model without a wrapper"),
        (lambda: nn.Linear(2, 2), "teacher='Linear': give a transformers model"),
        (lambda: None, "teacher='NoneType': give a transformers model"),
        (lambda: hf.BertModel, "teacher='type': give a transformers model"),
    ],
)
def test_teachers_that_cannot_be_cut_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        create_student(make(), 1)


def test_merged_adapters_are_part_of_the_weights():
    adapted = with_peft()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    merged = adapted.merge_and_unload()
    student = create_student(merged, LAYERS)
    assert torch.equal(outputs(student, "bert"), outputs(merged.eval(), "bert"))


def test_a_layer_unlike_the_one_it_would_replace_is_refused():
    with pytest.raises(ValueError, match=r"other parts: layers\.0\.attn_norm.*keep other layers"):
        create_student(hf.ModernBertModel(hf.ModernBertConfig(**{**TEXT, **MODERN})), [1, 2])


def test_a_missing_folder_is_told_as_transformers_tells_it(tmp_path):
    with pytest.raises(OSError):
        create_student(tmp_path / "none", 2)
