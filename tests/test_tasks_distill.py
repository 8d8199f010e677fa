"""The distillation recipe: its options, its models, and a run of all three from files."""

import json
import os

import datasets
import numpy as np
import pytest
import torch
from animals import ANIMALS, WORDS, rows, save_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_sat.tasks import speed
from hf_sat.tasks.distill import DistillOptions, distill, read_distill_options, read_student_layers
from hf_sat.tasks.distill_models import in_order_of, teacher_and_student, trained_classifier
from hf_sat.tasks.distill_results import ModelResult, models_table
from hf_sat.tasks.text import Texts, read_texts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(str(tmp_path_factory.mktemp("encoder")), layers=2)


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory):
    """One layer, and other numbers for the same words."""
    words = [*WORDS[:2], *reversed(WORDS[2:]), "more"]
    return save_encoder(str(tmp_path_factory.mktemp("other")), words=words)


@pytest.fixture
def flags(encoder, tmp_path):
    rows().to_csv(tmp_path / "train.csv", index=False)
    common = f"--teacher_model_name_or_path {encoder} --train_file {tmp_path}/train.csv --label_column animal "
    common += f"--validation_file {tmp_path}/train.csv --output_dir {tmp_path}/out --use_cpu --disable_tqdm true "
    return common + "--learning_rate 3e-3 --save_strategy no --logging_strategy no --num_train_epochs 4 "


def run(flags: str) -> list[ModelResult]:
    return distill(*read_distill_options(flags.split()))


def pair_of(flags: str):
    options, args = read_distill_options(flags.split())
    texts = read_texts(options, args)
    return teacher_and_student(texts, options, args, options.teacher_model_name_or_path, options.student_layers)


# ---- options --------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_a_distillation():
    for argv, compares in ([], True), (["--train_file", "x.csv"], False):
        options, args = read_distill_options(argv)
        assert (args.label_correction, options.noise_rate, options.compare) == ("none", 0.0, compares)
        assert args.kd_weight > 0 and args.output_dir == "runs/distill_bert"
    assert read_distill_options(["--label_correction", "sat", "--kd_weight", "0.3"])[1].kd_weight == 0.3


@pytest.mark.parametrize(
    "argv",
    ["--model_name_or_path x", "--teacher_model_name_or_path x", "--kd_cache_dir x", "--train_file x.csv"],
)
def test_hidden_states_and_their_student_are_for_the_packaged_pair(argv):
    """Other models and a cache would be refused with them, for what the user did not say."""
    ours, theirs = read_distill_options([]), read_distill_options(argv.split())
    found = [(its.student_layers, its.student_start, args.kd_hidden_weight) for its, args in (ours, theirs)]
    assert found == [([0, 1, 2], "pretrained", 30.0), (None, "teacher", 0.0)]
    asked = read_distill_options([*argv.split(), "--kd_hidden_weight", "7"])[1]
    assert asked.kd_hidden_weight == 7.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--studnt_layers", "3"], "did you mean 'student_layers'"),
        (["--kd_temprature", "3"], "did you mean 'kd_temperature'"),
        (["--student_layers", "0"], "student_layers=0"),
        (["--teacher_learning_rate", "0"], "teacher_learning_rate=0"),
        (["--student_layers", "half"], "student_layers='half'.*how many, or which"),
        (["--student_layers", "1.5"], "student_layers='1.5'.*how many, or which"),
        (["--student_layers", "0,"], "student_layers='0,'.*how many, or which"),
        (["--student_layers", "2", "--model_name_or_path", "x"], "student_layers=2.*model_name_or_path"),
        (["--teacher_num_train_epochs", "-1"], "teacher_num_train_epochs=-1"),
        (["--kd_weight", "2"], "kd_weight=2"),
    ],
)
def test_wrong_options_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        read_distill_options(argv)


@pytest.mark.parametrize("given", [1.5, [0.5], True, [True], {"0": 1}, ""])
def test_what_a_file_may_say_of_layers_is_not_rounded(given):
    """YAML has numbers of its own, of which `int` would make others."""
    with pytest.raises(ValueError, match=r"student_layers=.*how many, or which"):
        read_student_layers(given)
    assert [read_student_layers(each) for each in (3, [0, 2], None)] == [3, [0, 2], None]


def test_options_say_what_they_are():
    assert all(field.metadata["help"] for field in DistillOptions.__dataclass_fields__.values())


# ---- models ---------------------------------------------------------------------------------------------------------


def test_an_encoder_is_yet_to_be_trained(flags, encoder):
    pair = pair_of(flags)
    assert not pair.is_trained and trained_classifier(encoder, len(ANIMALS)) is None
    teacher = pair.teacher.make_model()
    student = pair.make_student(teacher)
    assert pair.teacher.make_model() is teacher and pair.teacher_tokenizer is None
    assert (teacher.config.num_hidden_layers, student.config.num_hidden_layers) == (2, 1)
    assert student.config.id2label == dict(enumerate(ANIMALS)) and student.dtype == torch.float32


def test_layers_that_a_teacher_lacks_are_refused(flags):
    with pytest.raises(ValueError, match="student_layers=3: the teacher has 2"):
        pair_of(flags + "--student_layers 3")


@pytest.mark.parametrize("given, first", [("1", 0), ("1,0", 1), ("0,1", 0)])
def test_which_layers_a_student_is_cut_of(flags, given, first):
    """How many, or which, in the order in which they are named."""
    pair = pair_of(flags + f"--student_layers {given}")
    teacher = pair.teacher.make_model()
    theirs, ours = (model.bert.encoder.layer for model in (teacher, pair.make_student(teacher)))
    assert len(ours) == len(given.split(","))
    assert torch.equal(ours[0].output.dense.weight, theirs[first].output.dense.weight)
    with pytest.raises(ValueError, match=r"student_layers=\[0, 2\]: the teacher has 2, counted from 0"):
        pair_of(flags + "--student_layers 0,2")


def test_a_student_may_start_from_the_pretrained_layers(flags, encoder, tmp_path):
    """Which have heard nothing of the teacher's training; both students start alike."""
    options, args = read_distill_options((flags + "--student_start pretrained").split())
    names = options.teacher_model_name_or_path, options.student_layers
    pairs = [teacher_and_student(read_texts(options, args), options, args, *names, start)
             for start in ("teacher", "pretrained")]  # fmt: skip
    for pair, moves in zip(pairs, (True, False)):
        teacher = pair.teacher.make_model()
        before = teacher.bert.encoder.layer[0].output.dense.weight.clone()
        with torch.no_grad():
            teacher.bert.encoder.layer[0].output.dense.weight.add_(1.0)
        one, other = (pair.make_student(teacher).bert.encoder.layer[0].output.dense.weight for _ in range(2))
        assert torch.equal(one, other) and one is not other and torch.equal(one, before + moves)
    with pytest.raises(ValueError, match=r"student_start='pretrained'.*model_name_or_path"):
        read_distill_options((flags + f"--student_start pretrained --model_name_or_path {encoder}").split())
    trained = classifier(encoder, ANIMALS)
    trained.save_pretrained(tmp_path / "trained")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "trained")
    flags = flags.replace(encoder, str(tmp_path / "trained"))
    with pytest.raises(ValueError, match=r"student_start='pretrained'.*trained classifier"):
        run(flags + "--student_start pretrained")


def test_a_student_with_another_vocabulary_gets_columns_for_its_teacher(flags, other_encoder):
    pair = pair_of(flags + f"--model_name_or_path {other_encoder}")
    assert pair.teacher_tokenizer is pair.teacher.processing_class
    assert pair.student.train["teacher_input_ids"][:] == pair.teacher.train["input_ids"][:]
    assert pair.student.train["input_ids"][:] != pair.teacher.train["input_ids"][:]


def classifier(encoder: str, names: list[str]) -> AutoModelForSequenceClassification:
    return AutoModelForSequenceClassification.from_pretrained(
        encoder, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )


def labelled(names: list[str]) -> Texts:
    features = datasets.Features({"labels": datasets.ClassLabel(names=names), "text": datasets.Value("string")})
    train = datasets.Dataset.from_dict({"labels": [0, 1, 2, 0], "text": list("abca")}, features=features)
    return Texts(train.add_column("clean_labels", np.array([0, 1, 1, 0])), train, "text")


def test_classes_are_numbered_as_the_teacher_has_them(encoder):
    texts = in_order_of(classifier(encoder, ["owl", "cat", "dog"]), labelled(["cat", "dog", "owl"]))
    for split in (texts.train, texts.validation):
        assert split.features["labels"].int2str(split["labels"][:]) == ["cat", "dog", "owl", "cat"]
        assert split["labels"][:] == [1, 2, 0, 1]
    assert texts.train["clean_labels"][:] == [1, 2, 2, 1]
    nameless = classifier(encoder, ["LABEL_0", "LABEL_1", "LABEL_2"])
    texts = in_order_of(nameless, labelled(["cat", "dog", "owl"]))
    assert texts.train["labels"][:] == [0, 1, 2, 0] and nameless.config.id2label[2] == "owl"
    with pytest.raises(ValueError, match="cow"):
        in_order_of(classifier(encoder, ["owl", "cat", "cow"]), labelled(["cat", "dog", "owl"]))


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_distillation_end_to_end(flags, tmp_path, capsys):
    teacher, alone, student = run(flags + "--compare --teacher_num_train_epochs 6")
    printed = capsys.readouterr().out
    assert teacher.score == 1.0 and alone.score > 0.5 and student.kept == student.score
    assert student.parameters == alone.parameters < teacher.parameters
    assert student.speed_up > 0 and teacher.speed_up == 1.0 and student.samples_per_second > 0
    folders = [os.path.join(tmp_path, "out", name) for name in ("teacher", "alone", "")]
    for result, folder in zip((teacher, alone, student), folders):
        assert os.path.samefile(result.folder, folder) and f"{result.name}: " in printed
        assert result.weight_bytes == os.path.getsize(os.path.join(folder, "model.safetensors"))
        saved = AutoModelForSequenceClassification.from_pretrained(folder)
        assert sum(p.numel() for p in saved.parameters()) == result.parameters
    assert (
        "1/3 teacher: " in printed
        and "3/3 student: 1 of the 2 layers of encoder" in printed
        and ", 6 epochs" in printed
    )
    with open(tmp_path / "out" / "results.json", encoding="utf-8") as file:
        assert [entry["name"] for entry in json.load(file)] == ["teacher", "student alone", "student"]

    # What it has left is a teacher that needs no training.
    flags = flags.replace(f"--output_dir {tmp_path}/out", f"--output_dir {tmp_path}/again")
    rest = flags.partition(" --train_file")[2]
    trained = f"--teacher_model_name_or_path {folders[0]} --train_file{rest}"
    taught, _ = run(trained + f"--kd_cache_dir {tmp_path}/logits")
    assert taught.score == teacher.score and taught.folder is None and taught.weight_bytes > 0
    assert "trained already" in capsys.readouterr().out and not os.path.exists(tmp_path / "again" / "teacher")
    assert os.path.exists(tmp_path / "logits" / "cache.json")


def test_hidden_states_are_a_matter_of_the_student_that_has_a_teacher(flags, tmp_path):
    """The runs without one leave them out."""
    plain = run(flags + "--compare")
    hidden = run(flags.replace("/out ", "/hidden ") + "--compare --kd_hidden_weight 5")
    assert [result.score for result in plain[:2]] == [result.score for result in hidden[:2]]
    folders = [tmp_path / "out", tmp_path / "hidden"]
    files = [
        (folder / path).read_bytes() for path in ("alone/model.safetensors", "model.safetensors") for folder in folders
    ]
    assert files[0] == files[1] and files[2] != files[3]


def test_a_teacher_with_its_own_tokens_and_label_correction(flags, other_encoder, tmp_path):
    correcting = "--label_correction sat --sat_start_epoch 1 --noise_rate 0.2 "
    teacher, student = run(flags + correcting + f"--model_name_or_path {other_encoder}")
    assert teacher.corrected is not None and student.corrected is not None
    for folder in ("out", "out/teacher"):
        assert os.path.exists(tmp_path / folder / "labels.parquet")


def test_a_run_resumes_all_three(flags):
    flags = flags.replace("--save_strategy no", "--save_strategy epoch") + "--compare "
    first = run(flags)
    again = run(flags + "--resume_from_checkpoint true")
    assert all(result.resumed for result in again)
    assert [result.score for result in again] == [result.score for result in first]


# ---- measuring ------------------------------------------------------------------------------------------------------


def test_speeds_are_medians_of_batches_in_turn(monkeypatch):
    played, now = [], [0.0]

    class Model(torch.nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds

        def forward(self, x):
            played.append(self.seconds)
            now[0] += self.seconds * (10 if len(played) == 21 else 1)  # a disturbance does not tell

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    slow, fast = speed.inference_speeds([Model(2.0), Model(0.5)], [[{"x": torch.zeros(4)}]] * 2)
    assert played == [2.0, 0.5] * (speed.WARM_UP + speed.ROUNDS)
    assert (slow.samples_per_second, slow.over_first) == (2.0, 1.0)
    assert (fast.samples_per_second, fast.over_first) == (8.0, 4.0)


def test_table_has_a_dash_for_what_is_not_known():
    from rich.console import Console

    console = Console(width=80)
    given = ModelResult("teacher", 0.0, parameters=22_600_000, weight_bytes=90_400_000, samples_per_second=123.4)
    with console.capture() as capture:
        console.print(models_table([given], "title", 0))
    row = next(line for line in capture.get().splitlines() if "teacher " in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["teacher", "-", "-", "22.6M", "90 MB", "123", "1.00x", "-"]


def test_augmented_texts(flags, other_encoder):
    """All three train on views; a teacher that reads other tokens cannot follow them, which is refused."""
    pair = pair_of(flags + "--augment swap:0.5")
    assert pair.teacher.views is not None and pair.student.views is not None
    assert len(run(flags + "--augment swap:0.5 --num_train_epochs 1 --compare")) == 3
    with pytest.raises(ValueError, match=r"augment='swap:0.5'.*different tokens"):
        pair_of(flags + f"--augment swap:0.5 --model_name_or_path {other_encoder}")
    with pytest.raises(ValueError, match=r"kd_cache_dir.*kd_cache_per_epoch"):
        run(flags + "--augment swap:0.5 --num_train_epochs 1 --kd_cache_dir out/logits")
