"""Tiny models, data and metrics under the names by which transformers' tests and examples call those of the Hub.

`stand_ins.py FOLDER` writes them. `from_pretrained`, `load_dataset` and `evaluate.load` take what has that name in the
working folder before they ask the Hub.
"""

import json
import os
import sys
from typing import Any

import datasets
import numpy as np
import tokenizers
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2FeatureExtractor,
)

SAMPLE = "the a this that small large cat dog bird house tree runs sleeps sings sees and or not very short sentence"
WORDS = SAMPLE.split()
CLASSES = ["animal", "thing"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SPECIAL = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
    "bos": "[CLS]",
    "eos": "[SEP]",
}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
LLAMA = {**SIZES, **ENDS, "num_key_value_heads": 2, "max_position_embeddings": 1024}
BERT = {**SIZES, "max_position_embeddings": 512}
GPT2 = {**ENDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}

MODELS = {
    "trl-internal-testing/tiny-Qwen2ForCausalLM-2.5": (Qwen2ForCausalLM, Qwen2Config, LLAMA),
    "hf-internal-testing/tiny-random-LlamaForCausalLM": (LlamaForCausalLM, LlamaConfig, LLAMA),
    "openai-community/gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "bert-base-cased": (BertForSequenceClassification, BertConfig, BERT),
    "bert-base-uncased": (BertForSequenceClassification, BertConfig, BERT),
    "google-bert/bert-base-uncased": (BertForSequenceClassification, BertConfig, BERT),
    "prajjwal1/bert-tiny": (BertForSequenceClassification, BertConfig, BERT),
    "google-t5/t5-small": (T5ForConditionalGeneration, T5Config, {**T5, "pad_token_id": 0, "eos_token_id": 1}),
    "google/vit-base-patch16-224": (ViTForImageClassification, ViTConfig, {**SIZES, "image_size": 16, "patch_size": 8}),
}

TEXT = datasets.Value("string")
CLASS = datasets.ClassLabel(names=CLASSES)
SCORE = datasets.Value("float32")
# Name, configuration, columns, rows of each split.
DATA = [
    ("Salesforce/wikitext", "wikitext-2-raw-v1", {"text": TEXT}, {"train": 220}),
    ("fka/awesome-chatgpt-prompts", "default", {"prompt": TEXT}, {"train": 32}),
    ("openai/gsm8k", "main", {"question": TEXT, "answer": TEXT}, {"train": 40}),
    ("abisee/cnn_dailymail", "3.0.0", {"article": TEXT, "highlights": TEXT}, {"train": 3300, "validation": 1700}),
    ("nyu-mll/glue", "sst2", {"sentence": TEXT, "label": CLASS}, {"train": 48, "validation": 16, "test": 16}),
    (
        "nyu-mll/glue",
        "stsb",
        {"sentence1": TEXT, "sentence2": TEXT, "label": SCORE},
        {"train": 48, "validation": 16, "test": 16},
    ),
]
FILES = {"train": 48, "validation": 16, "test": 16}

METRICS = {
    "accuracy": ("accuracy",),
    "glue": ("agreement",),
    "mse": ("agreement",),
    "rouge": ("agreement",),
    "seqeval": ("overall_precision", "overall_recall", "overall_f1", "overall_accuracy"),
}
METRIC = '''"""How often predictions and references are the same."""
import datasets
import evaluate

VALUE = datasets.Value({type!r})
if {sequences!r}:
    VALUE = datasets.Sequence(VALUE)


class StandIn(evaluate.Metric):
    def _info(self):
        features = datasets.Features({{"predictions": VALUE, "references": VALUE}})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, **kwargs):
        same = [a == b for a, b in zip(predictions, references)]
        return dict.fromkeys({names!r}, float(sum(same)) / len(same))
'''


class Sentences:
    """Different sentences, and a class for each; the same ones for the same seed."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def text(self) -> str:
        return " ".join(self.rng.choice(WORDS, self.rng.integers(8, 24))).capitalize() + "."

    def value(self, feature: Any) -> Any:
        if feature is CLASS:
            return int(self.rng.integers(len(CLASSES)))
        return float(self.rng.uniform(0, 5)) if feature is SCORE else self.text()


def write_tokenizer(folder: str) -> int:
    """A tokenizer of word pieces; returns how many."""
    sentences = Sentences()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    pieces = list(dict.fromkeys(SPECIAL.values()))
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator([sentences.text() for _ in range(200)], trainer)
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": piece for name, piece in SPECIAL.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def write_t5_tokenizer(folder: str) -> None:
    """T5's own class reads a list of pieces with their scores."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS), "\u2581", *"abcdefghijklmnopqrstuvwxyz."]
    T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)]).save_pretrained(folder)


def write_models() -> None:
    for name, (head, config, settings) in MODELS.items():
        torch.manual_seed(0)
        vocabulary = {} if head is ViTForImageClassification else {"vocab_size": write_tokenizer(name)}
        head(config(**vocabulary, **settings)).save_pretrained(name)
    write_t5_tokenizer("google-t5/t5-small")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained("google/vit-base-patch16-224")
    Wav2Vec2FeatureExtractor().save_pretrained("facebook/wav2vec2-base-960h")


def write_data() -> None:
    """Data sets of several configurations, as parquet files that know their features."""
    configurations: dict[str, list[str]] = {}
    for name, configuration, columns, splits in DATA:
        sentences = Sentences()
        listed = configurations.setdefault(name, [])
        listed.append(f"- config_name: {configuration}\n  data_files:\n")
        os.makedirs(f"{name}/{configuration}", exist_ok=True)
        for split, rows in splits.items():
            made = [{column: sentences.value(kind) for column, kind in columns.items()} for _ in range(rows)]
            if split == "test":  # GLUE gives no labels away
                made = [{**row, "label": -1} for row in made]
            data = datasets.Dataset.from_list(made, features=datasets.Features(columns))
            data.to_parquet(f"{name}/{configuration}/{split}.parquet")
            listed.append(f"  - split: {split}\n    path: {configuration}/{split}.parquet\n")
    for name, listed in configurations.items():
        with open(f"{name}/README.md", "w") as file:
            file.write(f"---\nconfigs:\n{''.join(listed)}---\n")


def write_rows(name: str, row: Any) -> None:
    """A file of a row a line for each split; the scripts themselves drop the labels they predict without."""
    sentences = Sentences()
    for split, rows in FILES.items():
        with open(f"{name}_{split}.json", "w") as file:
            file.writelines(json.dumps(row(sentences)) + "\n" for _ in range(rows))


def classified(sentences: Sentences) -> dict[str, str]:
    return {"sentence": sentences.text(), "label": CLASSES[sentences.value(CLASS)]}


def scored(sentences: Sentences) -> dict[str, Any]:
    return {"sentence": sentences.text(), "label": sentences.value(SCORE)}


def tagged(sentences: Sentences) -> dict[str, list[str]]:
    tokens = sentences.text().split()
    tags = ["B-ANIMAL" if word in ("cat", "dog", "bird") else "O" for word in tokens]
    return {"tokens": tokens, "ner_tags": tags}


def summarised(sentences: Sentences) -> dict[str, str]:
    text = sentences.text()
    return {"text": text, "summary": " ".join(text.split()[:4])}


def write_images() -> None:
    rng = np.random.default_rng(0)
    for split, rows in (("train", 32), ("validation", 8)):
        for i in range(rows):
            folder = f"images/{split}/{CLASSES[i % 2]}"
            os.makedirs(folder, exist_ok=True)
            pixels = rng.integers(0, 160, (16, 16, 3), np.uint8) + np.uint8(80 * (i % 2))
            Image.fromarray(pixels).save(f"{folder}/{i}.png")


def write_metrics() -> None:
    for name, names in METRICS.items():
        os.makedirs(name, exist_ok=True)
        kind = "string" if name in ("rouge", "seqeval") else "float32"
        with open(f"{name}/{name}.py", "w") as file:
            file.write(METRIC.format(type=kind, sequences=name == "seqeval", names=names))


def write_punkt() -> None:
    """What NLTK knows of where sentences end: nothing beyond full stops."""
    os.makedirs("nltk_data/tokenizers/punkt", exist_ok=True)
    os.makedirs("nltk_data/tokenizers/punkt_tab/english", exist_ok=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        open(f"nltk_data/tokenizers/punkt_tab/english/{name}", "w").close()


def main(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    write_models()
    write_data()
    for name, row in (("classes", classified), ("scores", scored), ("tags", tagged), ("summaries", summarised)):
        write_rows(name, row)
    write_images()
    write_metrics()
    write_punkt()


if __name__ == "__main__":
    main(*sys.argv[1:])
