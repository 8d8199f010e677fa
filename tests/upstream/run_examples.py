"""The example scripts of transformers and peft, run as they are and with the import line changed; see tests/README.md.

`run_examples.py TRANSFORMERS PEFT FOLDER [SCRIPT ...]`: two checkouts, and a folder for data and runs.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import stand_ins

TRAINERS = {
    "Trainer": "SATTrainer",
    "TrainingArguments": "SATConfig",
    "Seq2SeqTrainer": "SATSeq2SeqTrainer",
    "Seq2SeqTrainingArguments": "SATSeq2SeqConfig",
}

BERT = "--model_name_or_path google-bert/bert-base-uncased"
FILES = "--train_file {0}_train.json --validation_file {0}_validation.json --test_file {0}_test.json"
ALL = "--do_train --do_eval --do_predict"
SHORT = (
    "--num_train_epochs 2 --per_device_train_batch_size 8 --per_device_eval_batch_size 8 --logging_steps 2 "
    "--save_strategy epoch --learning_rate 1e-3 --report_to none --use_cpu --disable_tqdm True"
)
SCORES = f"--max_seq_length 32 --ignore_mismatched_sizes {ALL}"
TEXTS = "transformers/examples/pytorch/text-classification"

# Name: the script, its own arguments.
SCRIPTS = {
    "run_glue": (f"{TEXTS}/run_glue.py", f"{BERT} --task_name sst2 --max_seq_length 32 {ALL}"),
    "run_classification": (
        f"{TEXTS}/run_classification.py",
        f"{BERT} {FILES.format('classes')} --text_column_names sentence --max_seq_length 32 {ALL}",
    ),
    "run_image_classification": (
        "transformers/examples/pytorch/image-classification/run_image_classification.py",
        "--model_name_or_path google/vit-base-patch16-224 --train_dir images/train --validation_dir images/validation "
        "--remove_unused_columns False --ignore_mismatched_sizes --do_train --do_eval",
    ),
    "run_ner": (
        "transformers/examples/pytorch/token-classification/run_ner.py",
        f"{BERT} {FILES.format('tags')} {ALL}",
    ),
    "run_summarization": (
        "transformers/examples/pytorch/summarization/run_summarization.py",
        f"--model_name_or_path google-t5/t5-small {FILES.format('summaries')} --text_column text "
        f"--summary_column summary --predict_with_generate --max_target_length 8 --num_beams 1 {ALL}",
    ),
    "frod_text_classification": ("peft/examples/frod_finetuning/frod_text_classification.py", ""),
    "run_glue, STS-B": (
        f"{TEXTS}/run_glue.py",
        f"{BERT} --task_name stsb {SCORES}",
    ),
    "run_classification, scores": (
        f"{TEXTS}/run_classification.py",
        f"{BERT} {FILES.format('scores')} --text_column_names sentence {SCORES}",
    ),
}
REGRESSION = ("run_glue, STS-B", "run_classification, scores")

# Name: whether the import is changed, further arguments, how many processes.
WAYS = {
    "theirs": (False, "", 1),
    "theirs resumed": (False, "--resume_from_checkpoint {from}", 1),
    "off": (True, "--label_correction none", 1),
    "on": (True, "--label_correction sat", 1),
    "resumed": (True, "--label_correction sat --resume_from_checkpoint {from}", 1),
    "bf16": (True, "--label_correction sat --bf16", 1),
    "two processes": (True, "--label_correction sat", 2),
}
WITHOUT_OURS = ("theirs", "theirs resumed", "off")
# A way: one that ends with the same weights.
SAME = {"theirs resumed": "theirs", "off": "theirs", "resumed": "on"}


def with_our_import(source: str) -> str:
    """The script with the names of the Trainer and its arguments taken from hf_sat, and nothing else changed."""
    block = re.search(r"^from transformers import \(\n(.*?)^\)\n", source, re.MULTILINE | re.DOTALL)
    names = [line.strip(" ,") for line in block[1].splitlines()]
    kept = "".join(f"    {name},\n" for name in names if name not in TRAINERS)
    ours = ", ".join(f"{TRAINERS[name]} as {name}" for name in names if name in TRAINERS)
    return source.replace(block[0], f"from transformers import (\n{kept})\nfrom hf_sat import {ours}\n")


def run(name: str, way: str) -> tuple[int, str]:
    """The exit status and what was printed."""
    script, arguments = SCRIPTS[name]
    swapped, further, processes = WAYS[way]
    if way.endswith("resumed"):
        further = further.replace("{from}", first_checkpoint(out_of(name, SAME[way])))
    copied = f"{'ours' if swapped else 'theirs'}_{os.path.basename(script)}"
    launched = f"-m accelerate.commands.launch --multi_gpu --num_processes {processes} --main_process_port 0"
    command = [sys.executable, *(launched.split() if processes > 1 else []), copied, *arguments.split()]
    command += [*SHORT.split(), *further.split(), "--output_dir", out_of(name, way)]
    shutil.rmtree(out_of(name, way), ignore_errors=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(f"{out_of(name, way)}.log", "w") as file:
        file.write(done.stdout)
    return done.returncode, done.stdout


def out_of(name: str, way: str) -> str:
    return f"out/{name}/{way}".replace(", ", "_").replace(" ", "_")


def first_checkpoint(folder: str) -> str:
    steps = [int(entry.split("-")[1]) for entry in os.listdir(folder) if entry.startswith("checkpoint-")]
    return f"{folder}/checkpoint-{min(steps)}"


def weights(name: str, way: str) -> str:
    """What the weights at the end are, in short."""
    folder = out_of(name, way)
    found = [entry for entry in os.listdir(folder) if entry.endswith("model.safetensors")]
    with open(f"{folder}/{found[0]}", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def logged(name: str, way: str) -> set[str]:
    """The names of all that was logged by the last checkpoint."""
    folder = out_of(name, way)
    last = max(
        (e for e in os.listdir(folder) if e.startswith("checkpoint-")), key=lambda entry: int(entry.split("-")[1])
    )
    with open(f"{folder}/{last}/trainer_state.json") as file:
        return {key for log in json.load(file)["log_history"] for key in log}


def judge(name: str, way: str, status: int, output: str) -> str:
    """ "ok", or what is wrong."""
    if name in REGRESSION and way not in WITHOUT_OURS:
        refused = status != 0 and "ValueError" in output and 'label_correction="none"' in output
        return "ok, refused" if refused else "NOT REFUSED"
    if status != 0:
        errors = [line for line in output.splitlines() if re.match(r"\S*(Error|Exception)\b", line)]
        return f"FAILED: {errors[-1] if errors else output[-200:]}"
    if any(key.startswith("sat/") for key in logged(name, way)) == (way in WITHOUT_OURS):
        return "FAILED: label correction is not on where it should be, or the reverse"
    if way not in SAME:
        return "ok"
    if weights(name, way) == weights(name, SAME[way]):
        return f"ok, the weights of {SAME[way]!r}"
    # Transforms that draw from the global generators do not resume exactly, in the plain Trainer either.
    inexact = way.endswith("resumed") and weights(name, "theirs resumed") != weights(name, "theirs")
    return f"{'ok' if inexact else 'FAILED'}, other weights than {SAME[way]!r}"


def main(transformers: str, peft: str, folder: str, *names: str) -> int:
    checkouts = {"transformers": os.path.abspath(transformers), "peft": os.path.abspath(peft)}
    stand_ins.main(folder)  # and works there from here on
    os.environ.setdefault("NLTK_DATA", os.path.abspath("nltk_data"))
    failed = 0
    for name in names or SCRIPTS:
        checkout, path = SCRIPTS[name][0].split("/", 1)
        with open(os.path.join(checkouts[checkout], path)) as file:
            source = file.read()
        for prefix, text in (("theirs", source), ("ours", with_our_import(source))):
            with open(f"{prefix}_{os.path.basename(path)}", "w") as file:
                file.write(text)
        os.makedirs(os.path.dirname(out_of(name, "on")), exist_ok=True)
        for way in WAYS:
            if name in REGRESSION and way not in ("theirs", "off", "on"):
                continue
            outcome = judge(name, way, *run(name, way))
            failed += not outcome.startswith("ok")
            print(f"{name:28} {way:14} {outcome}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
