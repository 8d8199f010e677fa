"""Text in ten words, and an encoder that reads them, for the tests of tasks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

ANIMALS = ("cat", "dog", "owl")
WORDS = ("[PAD]", "[UNK]", *ANIMALS, "the", "sees", "a", "house", "tree")


def rows(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % len(ANIMALS)
    texts = [" ".join([ANIMALS[y], *rng.choice(WORDS[5:], 4)]) for y in labels]
    return pd.DataFrame({"review": texts, "animal": [ANIMALS[y] for y in labels], "stars": labels / 2})


def save_encoder(folder: str, layers: int = 1, words: Sequence[str] = WORDS) -> str:
    """A tokenizer of these words and a tiny BERT."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder
