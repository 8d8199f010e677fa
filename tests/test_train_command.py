"""`hf-sat train` and the recipes that call it: where settings come from, what is refused, what is left."""

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import datasets
import pytest
import yaml
from animals import rows, save_encoder

from hf_sat.cli import main
from hf_sat.tasks import train
from hf_sat.tasks.lora import LoraOptions
from hf_sat.tasks.options import OptionParser
from hf_sat.tasks.run import Task
from hf_sat.tasks.run_options import RunOptions
from hf_sat.tasks.text import OFFLINE, TextOptions

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """One thread, a cache and a folder of its own, and no setting from outside."""
    monkeypatch.setattr(train, "use_all_cores", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HF_SAT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def told(monkeypatch):
    """What a run would be told: the command line -> its options and `SATConfig`; nothing is trained."""
    kept = {}

    def keep(task, args, with_plain):
        kept.update(args=args, with_plain=with_plain)
        return []

    monkeypatch.setattr(train, "compare", keep)
    made = Task(None, None, make_model=None, all_cores=False)
    monkeypatch.setattr(train, "with_adapters", lambda task, lora, says: kept.update(lora=lora))
    monkeypatch.setattr("hf_sat.tasks.text.text_task", lambda options, args: kept.update(options=options) or made)

    def tell(*argv, **presets):
        train.train(argv, presets=presets)
        return kept

    return tell


# ---- where settings come from ---------------------------------------------------------------------------------------


def test_command_line_over_file_over_environment_over_presets(told, monkeypatch):
    Path("run.yaml").write_text("task: text\nlearning_rate: 3e-4\nseed: 4\nlogging_steps: 7\n")
    monkeypatch.setenv("HF_SAT_LEARNING_RATE", "9e-4")
    monkeypatch.setenv("HF_SAT_SEED", "9")
    monkeypatch.setenv("HF_SAT_REPORT_TO", "none")
    monkeypatch.setenv("HF_SAT_NUM_TRAIN_EPOCHS", "5")
    monkeypatch.setenv("HF_SAT_MAX_LENGTH", "")
    args = told("run.yaml", "--seed", "2", logging_steps=3, num_train_epochs=8, sam="sam", max_length=50)["args"]
    assert (args.seed, args.learning_rate, args.num_train_epochs, args.logging_steps) == (2, 3e-4, 5, 7)
    assert args.sam == "sam" and told()["options"].max_length == OFFLINE["max_length"]
    assert told("--config", "run.yaml")["args"].seed == 4


def test_adapters_have_a_learning_rate_of_their_own(told):
    plain = told()
    assert plain["args"].learning_rate == OFFLINE["learning_rate"] and "lora" not in plain and plain["with_plain"]
    for argv, presets in ((["--lora", "true"], {}), (["--lora=yes"], {}), (["--lora"], {}), ([], {"lora": True})):
        kept = told(*argv, **presets)
        assert kept.pop("lora").lora and kept["args"].learning_rate > OFFLINE["learning_rate"]
        assert kept["args"].output_dir == "runs/finetune_lora_sat"
    kept = told("--lora", "--train_file", "x.csv", "--lora_r", "4", "--lora_target_modules", "query", "value")
    assert (kept["lora"].lora_r, kept["lora"].lora_target_modules) == (4, ["query", "value"])
    assert not kept["with_plain"] and kept["args"].learning_rate == 5e-4


def test_lists_come_from_the_environment_too(told, monkeypatch):
    monkeypatch.setenv("HF_SAT_LORA", "true")
    monkeypatch.setenv("HF_SAT_LORA_TARGET_MODULES", "query value")
    assert told()["lora"].lora_target_modules == ["query", "value"]


@pytest.mark.parametrize("name", ["finetune_bert_sat.yaml", "finetune_lora_sat.yaml"])
def test_files_beside_the_recipes_are_read(told, name):
    kept = told(str(RECIPES / name))
    assert kept["options"].dataset_name == "ag_news" and ("lora" in kept) == ("lora" in name)
    assert kept["args"].learning_rate == float(yaml.safe_load((RECIPES / name).read_text())["learning_rate"])


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lerning_rate", "1"], "did you mean 'learning_rate'"),
        (["bad.yaml"], "lerning_rate: 1.*bad.yaml.*did you mean 'learning_rate'"),
        (["nowhere.yaml"], "config='nowhere.yaml': there is no such file"),
        (["broken.yaml"], "config='broken.yaml': it is no YAML"),
        (["bad.yaml", "--config", "other.yaml"], "config='other.yaml'.*'bad.yaml' is given too"),
        (["--task", "audio"], "task='audio': choose one of text, image, tokens"),
        (["--lora_r", "4"], "lora_r=4: there are no adapters"),
        (["--noise_rate", "1.5"], "noise_rate=1.5"),
        (["--learning_rate", "fast"], "learning_rate.*'fast'"),
        (["--config"], "config='true'"),
        (["--train_file", "x.csv"], "train_file='x.csv': there is no such file"),
        (["--train_file", "rows.csv", "--text_column", "reviw", "--label_column", "animal"], "Did you mean 'review'"),
        (["--output_dir", "rows.csv"], "output_dir='rows.csv': it cannot be made"),
        (["--model_name_or_path", "no/where"], "model_name_or_path='no/where'.*A folder must exist"),
        (["--dataset_name", "no/where"], "dataset_name='no/where'.*no data set of the Hub can be read"),
    ],
)
def test_a_line_and_status_2_for_what_cannot_be(argv, message, capsys):
    Path("bad.yaml").write_text("lerning_rate: 1\n")
    Path("broken.yaml").write_text("a: [1\nb: }")
    rows().to_csv("rows.csv", index=False)
    assert main(["train", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-sat train: ") and error.count("\n") == 1 and re.search(message, error), error


def test_a_misspelt_variable_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("HF_SAT_LERNING_RATE", "1")
    assert main(["train"]) == 2
    assert "HF_SAT_LERNING_RATE=1 (in the environment): there is no such setting; did you mean 'learning_rate'" in (
        capsys.readouterr().err
    )


def test_other_processes_keep_silent(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["train", "--task", "audio"]) == 2 and capsys.readouterr().err == ""


# ---- the tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", train.TASKS)
def test_a_registered_task_has_what_is_asked_of_it(name):
    known = train.TASKS[name]
    if importlib.util.find_spec(f"hf_sat.tasks.{known.module}") is None:
        pytest.skip(f"there is no hf_sat.tasks.{known.module}")
    module = known.load()
    options = getattr(module, known.options)
    assert is_dataclass(options) and issubclass(options, RunOptions) and callable(getattr(module, known.make_task))
    settings = OptionParser([options, LoraOptions, train.TrainOptions, train.SATConfig]).settings()
    assert "output_dir" in module.OFFLINE and {*module.OFFLINE, *module.OWN_DATA} <= set(settings)
    assert not {field.name for field in fields(options)} & {field.name for field in fields(LoraOptions)}


# ---- a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["finetune_bert_sat.py", "finetune_lora_sat.py"])
def test_recipes_are_the_command(recipe, tmp_path, monkeypatch, capsys):
    rows().to_csv("train.csv", index=False)
    settings = {
        "model_name_or_path": save_encoder(str(tmp_path / "encoder")),
        "train_file": "train.csv",
        "validation_file": "train.csv",
        "label_column": "animal",
        "output_dir": "out",
        "max_steps": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        "compare": True,
    }
    Path("run.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(sys, "argv", [str(RECIPES / recipe), "run.yaml", "--save_strategy", "no"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "2/2 SATTrainer" in printed and "Model: out" in printed and "out/labels.parquet" in printed
    assert ("LoRA: " in printed and "out/merged" in printed) == ("lora" in recipe)
    with open("out/results.json", encoding="utf-8") as file:
        assert [entry["name"] for entry in json.load(file)] == ["plain Trainer", "SATTrainer"]


@pytest.mark.parametrize("recipe", ["finetune_bert_sat.py", "finetune_lora_sat.py", "distill_bert.py"])
def test_recipes_refuse_in_a_line(recipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(RECIPES / recipe), "--lerning_rate", "1"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.argv[0], run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"{recipe}: --lerning_rate 1: ") and "'learning_rate'" in error


def test_text_options_are_the_default():
    assert train.TASKS["text"].load().TextOptions is TextOptions


# ---- help -----------------------------------------------------------------------------------------------------------


def helped(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_is_a_page_in_groups(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    page = helped(capsys, "train", "--help")
    titles = [line for line in page.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "settings are flags, or lines of a file:",
        "data and model:",
        "LoRA, with --lora true:",
        "label correction:",
        "sharpness-aware minimization:",
        "distillation, in runs that have a teacher:",
        "training, as transformers.TrainingArguments:",
    ]
    assert len(page.splitlines()) < 120 and max(map(len, page.splitlines())) <= 120
    for line in ("--task text|image|tokens ", "--lora_r N  ", "Rank of an adapter. [8]", "--sam none|sam|asam "):
        assert line in page
    assert "noise_rate 0.5" in page and "--help_all" in page and "--no_compare" not in page and "None" not in page


def test_help_all_has_every_setting(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    page = helped(capsys, "train", "--help_all")
    settings = OptionParser([train.TrainOptions, TextOptions, LoraOptions, train.SATConfig]).settings()
    assert not [name for name in settings if f"  --{name} " not in page and f"  --{name}\n" not in page]
    assert "constants of the peers" in page


@pytest.mark.parametrize("argv", [["sharpness", "--help"], ["train", "--task", "text", "--help"]])
def test_help_of_every_command(argv, capsys):
    assert f"usage: hf-sat {argv[0]}" in helped(capsys, *argv)


# ---- processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "processes"),
    [("one_gpu", "NO", 1), ("two_gpus", "MULTI_GPU", 2), ("two_cpu_processes", "MULTI_GPU", 2)],
)
def test_accelerate_reads_its_files(name, kind, processes):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_processes, config.use_cpu) == (kind, processes, False)


def test_two_cpu_processes_share_a_run(tmp_path):
    """Of 60 rows in batches of 8 an epoch takes 8 steps alone and 4 for two; each leaves its random state."""
    rows().to_csv("train.csv", index=False)
    flags = (
        f"--use_cpu --lora true --model_name_or_path {save_encoder(str(tmp_path / 'encoder'))} --train_file train.csv "
    )
    flags += "--label_column animal --output_dir out --num_train_epochs 1 --save_strategy epoch --disable_tqdm true"
    file = RECIPES / "accelerate" / "two_cpu_processes.yaml"
    command = ["--config_file", file, "--main_process_port", "0", RECIPES / "finetune_bert_sat.py"]
    environment = {**os.environ, "PYTHONPATH": str(RECIPES.parent), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *map(str, command), *flags.split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert {"checkpoint-4", "merged", "labels.parquet", "results.json"} <= set(os.listdir("out"))
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(os.listdir("out/checkpoint-4"))
    assert done.stdout.count("LoRA: ") == 1 and done.stdout.count("Model: out") == 1


# ---- the recipes' own dependencies (PEP 723) ------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("*.py")))
def test_recipes_name_what_they_need(recipe):
    tomllib = pytest.importorskip("tomllib")
    with open(RECIPES.parent / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    # The pattern is that of the specification.
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (block,) = re.finditer(pattern, (RECIPES / recipe).read_text(encoding="utf-8"))
    lines = block["content"].splitlines(keepends=True)
    header = tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))
    assert block["type"] == "script" and header["requires-python"] == project["requires-python"]
    (dependency,) = header["dependencies"]
    name, extras = re.fullmatch(r"(\w+)\[([\w,]+)\]", dependency).groups()
    assert name == project["name"] and set(extras.split(",")) <= set(project["optional-dependencies"])
    assert header["tool"]["uv"]["sources"] == {"hf_sat": {"path": "..", "editable": True}}
    assert ("lora" in extras) == ("lora" in recipe)
