"""AugmentedTexts: items by (epoch, id) alone, in any worker; labels of tokens; what is refused."""

import multiprocessing

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, PreTrainedTokenizerFast

from hf_sat.augment import AugmentedTexts, TextAugmenter

LETTERS = "abcdefghij"
TEXTS = [" ".join(LETTERS[(row + at * (1 + row % 3)) % 10] * 2 for at in range(3 + row % 9)) for row in range(37)]
NAMES = ["O", "B-PER", "I-PER"]


def tokenizer():
    """Cuts words into letters, the first as it is and the others marked."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2}
    for letter in LETTERS:
        vocabulary |= {letter: len(vocabulary), "##" + letter: len(vocabulary) + 1}
    bare = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]")


class Tokenize:
    """A tokenizer behind a picklable call, that counts how many texts come at a time."""

    def __init__(self):
        self.tokenizer = tokenizer()
        self.sizes = []

    def __call__(self, texts, *pair, **options):
        self.sizes.append(len(texts))
        return self.tokenizer(texts, *pair, truncation=True, max_length=32, **options)


def rows():
    return datasets.Dataset.from_dict({"text": TEXTS, "label": [row % 2 for row in range(37)]})


def augmented(**options):
    augmenter = TextAugmenter("deletion:0.2,swap:0.3,case:0.0", seed=5)
    return AugmentedTexts(rows(), augmenter, tokenize=Tokenize(), **options)


def batches(data, workers, epochs=(0, 1, 3), **options):
    """All items of some epochs, by what they say, through one loader."""
    options |= {"num_workers": workers, "persistent_workers": workers > 0} if workers else {}
    loader = DataLoader(data, batch_size=5, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer()), **options)
    seen = []
    for epoch in epochs:
        data.set_epoch(epoch)
        found = [
            (tuple(ids[mask.bool()].tolist()), int(label))
            for batch in loader
            for ids, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
        ]
        seen.append(sorted(found))
    return seen


def expected(data, epochs=(0, 1, 3)):
    texts = [[data.augmenter(text, key=(epoch, row)) for row, text in enumerate(TEXTS)] for epoch in epochs]
    return [sorted((tuple(ids), row % 2) for row, ids in enumerate(tokenizer()(every)["input_ids"])) for every in texts]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers, context", [(0, None), (1, "fork"), (4, "fork"), (1, "spawn")])
def test_items_depend_on_epoch_and_id_alone(workers, context):
    data = augmented()
    options = {"multiprocessing_context": multiprocessing.get_context(context)} if context else {}
    assert batches(data, workers, **options) == expected(data)
    assert expected(data, [0]) != expected(data, [1])


def test_a_batch_is_tokenised_at_once_and_singles_agree():
    data = augmented()
    data.set_epoch(2)
    fetched = data.__getitems__([7, 3, 36])
    assert data.tokenize.sizes == [3]
    assert fetched == [data[7], data[3], data[-1]]
    assert sorted(fetched[0]) == ["attention_mask", "input_ids", "label"]
    assert data.column_names == ["label"] and len(data) == 37 and data.epoch == 2


def test_without_tokenize_the_texts_stay():
    data = AugmentedTexts(rows(), TextAugmenter("swap:0.5"))
    data.set_epoch(1)
    assert data[4] == {"text": TextAugmenter("swap:0.5")(TEXTS[4], key=(1, 4)), "label": 0}
    assert data.column_names == ["text", "label"]


def test_pairs_have_draws_of_their_own():
    pairs = [{"a": text, "b": text, "label": 1} for text in TEXTS]
    data = AugmentedTexts(pairs, TextAugmenter("shuffle:0.6"), ["a", "b"], lambda a, b: {"a": a, "b": b})
    items = data.__getitems__(list(range(3, 37)))
    assert sum(item["a"] != item["b"] for item in items) > 20
    assert items[5]["a"] == data.augmenter(TEXTS[8], key=(0, 8))


def test_ids_of_the_samples_may_be_given():
    ids = [1000 + 3 * row for row in range(37)]
    data = AugmentedTexts(rows(), TextAugmenter("swap:0.5"), sample_ids=ids)
    assert data[4]["text"] == data.augmenter(TEXTS[4], key=(0, 1012))
    order = list(range(36, -1, -1))
    turned = AugmentedTexts(rows().select(order), data.augmenter, sample_ids=[ids[row] for row in order])
    assert [item["text"] for item in turned] == [item["text"] for item in data][::-1]


# ---- labels of tokens ----


def tagged():
    words = [text.split() for text in TEXTS]
    tags = [[(1 if at % 4 == 1 else 2 if at % 4 == 2 else 0) for at in range(len(row))] for row in words]
    features = {
        "words": datasets.List(datasets.Value("string")),
        "tags": datasets.List(datasets.ClassLabel(names=NAMES)),
    }
    return datasets.Dataset.from_dict({"words": words, "tags": tags}, features=datasets.Features(features))


@pytest.mark.parametrize("lock", [True, False])
def test_labels_stand_on_the_first_token_of_their_word(lock):
    augmenter = TextAugmenter("deletion:0.3,swap:0.3,insertion:0.2", seed=2)
    data = AugmentedTexts(tagged(), augmenter, "words", Tokenize(), label_column="tags", lock_entities=lock)
    data.set_epoch(4)
    for row, item in enumerate(data.__getitems__(list(range(37)))):
        words, labels = augmenter.augment_labelled(
            tagged()[row]["words"], tagged()[row]["tags"], (4, row), names=NAMES, lock_entities=lock
        )
        assert [label for label in item["labels"] if label != -100] == labels
        assert item["labels"] == [
            label for word, y in zip(words, labels, strict=True) for label in [y, *[-100] * (len(word) - 1)]
        ]
        assert len(item["labels"]) == len(item["input_ids"])
    loader = DataLoader(data, batch_size=4, collate_fn=DataCollatorForTokenClassification(tokenizer()))
    assert next(iter(loader))["labels"].shape == next(iter(loader))["input_ids"].shape


def test_labelled_words_stay_words_without_tokenize():
    data = AugmentedTexts(tagged(), TextAugmenter("deletion:0.5"), "words", label_column="tags")
    item = data[11]
    assert len(item["words"]) == len(item["tags"]) < len(TEXTS[11].split())


# ---- refusals ----


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: AugmentedTexts(rows(), TextAugmenter("swap:1"), "txt"), "text_column='txt'.*'text', 'label'"),
        (lambda: AugmentedTexts(tagged(), TextAugmenter("swap:1"), "words", label_column="ner"), "'ner'"),
        (
            lambda: AugmentedTexts(tagged(), TextAugmenter("swap:1"), ["words", "tags"], label_column="tags"),
            "one column",
        ),
        (lambda: AugmentedTexts(rows(), TextAugmenter("swap:1"), sample_ids=[1, 2]), "sample_ids=.*37 rows"),
        (lambda: augmented().set_epoch(-1), "epoch=-1"),
        (lambda: augmented().set_epoch(0.5), "epoch=0.5"),
        (lambda: AugmentedTexts([{"text": None}], TextAugmenter("swap:1"))[0], "'text' of sample 0 is None"),
    ],
)
def test_wrong_data_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_epoch_is_shared_memory():
    assert augmented()._epoch.is_shared() and augmented()._epoch.dtype == torch.int64
