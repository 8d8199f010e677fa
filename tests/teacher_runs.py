"""Teachers that several test files share."""

import copy

import torch
from small import pad, text_data
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import PreTrainedTokenizerFast

BATCH = pad(list(text_data(6)))


def logits(model, batch=BATCH):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(**batch).logits


def saved(folder, model):
    model.save_pretrained(folder)
    return str(folder)


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
