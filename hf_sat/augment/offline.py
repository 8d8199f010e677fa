"""Augmentation by models, once and before training: words by a masked language model, sentences by translation.

The augmented text replaces the column, the original one is kept as `original_<column>`. For more rows instead of other
rows: `datasets.concatenate_datasets([dataset, augmented.remove_columns("original_text")])`.
"""

from __future__ import annotations

from typing import Any

import datasets
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from ..rng import preserved_rng
from .checks import checked_rate, checked_seed, is_whole, refuse
from .draws import Draws, key_bytes
from .locks import lock_pattern
from .masked_words import MaskedText, read_gaps, whole_words
from .models import Model, check_column, loaded, mapped, tokens_of


def masked_lm_substitution(
    dataset: datasets.Dataset,
    column: str,
    model: Model,
    tokenizer: Any = None,
    rate: float = 0.15,
    *,
    top_k: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    locked: Any = (),
    device: Any = None,
) -> datasets.Dataset:
    """Words are masked, and what a masked language model reads into the gaps takes their place.

    A word is replaced by one drawn, by its probability, from the `top_k` whole words that the model finds most likely,
    the word itself left out. Which words are masked and what is drawn depends on (seed, row number) alone; the
    probabilities depend on the batch only by rounding.

    Args:
        dataset: one split.
        column: its column of texts.
        model: a folder, a Hub id, or a model; with a head for masked language modelling.
        tokenizer: a folder, a Hub id, or a tokenizer. Default: that of the model's folder.
        rate: expected share of words replaced; words of letters only are. What truncation cuts off stays.
        top_k: how many words a gap is filled from.
        batch_size: texts at a time.
        seed: a whole number.
        locked: presets and patterns of what to leave alone, as of [`TextAugmenter`].
        device: where the model runs. Default: a GPU if there is one.

    Returns:
        The data set with the new column, and the old one as `original_<column>`.

    Raises:
        ValueError: a setting is wrong, a text is none, or the tokenizer has no mask.
    """
    rate, seed = checked_rate("rate", rate), checked_seed(seed)
    if not is_whole(top_k) or top_k < 1:
        raise refuse("top_k", top_k, "give a whole number >= 1.")
    pattern = lock_pattern((locked,) if isinstance(locked, str) else tuple(locked))
    check_column(dataset, column)
    model, tokenizer = loaded(AutoModelForMaskedLM, model, tokenizer, device)
    if tokenizer.mask_token is None:
        raise refuse("tokenizer", type(tokenizer).__name__, "it has no mask token; take a masked language model.")
    allowed, spelled = whole_words(tokenizer, model)

    def substitute(texts: list[str], rows: list[int]) -> list[str]:
        hidden = [
            MaskedText(text, Draws(b"%d:masked_lm:0:%b" % (seed, key_bytes(row)))) for text, row in zip(texts, rows)
        ]
        for text in hidden:
            text.mask(rate, pattern, tokenizer.mask_token)
        open_ = [text for text in hidden if text.places]
        if open_:
            for text, gaps in zip(open_, read_gaps(model, tokenizer, [text.text() for text in open_], allowed)):
                text.fill(gaps, spelled, top_k)
        return [text.text() for text in hidden]

    return mapped(dataset, column, substitute, batch_size, "masked-LM substitution")


def back_translation(
    dataset: datasets.Dataset,
    column: str,
    forward_model: Model,
    backward_model: Model,
    forward_tokenizer: Any = None,
    backward_tokenizer: Any = None,
    *,
    batch_size: int = 16,
    seed: int = 0,
    device: Any = None,
    **generation: Any,
) -> datasets.Dataset:
    """Texts are translated to another language and back.

    Args:
        dataset: one split.
        column: its column of texts; empty ones stay.
        forward_model: a folder, a Hub id, or a model, such as "Helsinki-NLP/opus-mt-en-de".
        backward_model: the same for the way back, "Helsinki-NLP/opus-mt-de-en".
        forward_tokenizer: a folder, a Hub id, or a tokenizer. Default: that of the model's folder.
        backward_tokenizer: the same for the way back.
        batch_size: texts at a time.
        seed: a whole number, for `do_sample=True`. A sample depends on the batch it is drawn in, so on `batch_size`
            too; beams and greedy decoding do not, but for rounding.
        device: where the models run. Default: a GPU if there is one.
        **generation: settings of `generate`, such as `num_beams=4` or `do_sample=True`.

    Returns:
        The data set with the new column, and the old one as `original_<column>`.

    Raises:
        ValueError: a setting is wrong, or a text is none.
    """
    seed = checked_seed(seed)
    check_column(dataset, column)
    ways = [
        loaded(AutoModelForSeq2SeqLM, forward_model, forward_tokenizer, device),
        loaded(AutoModelForSeq2SeqLM, backward_model, backward_tokenizer, device),
    ]

    def translate(texts: list[str], rows: list[int]) -> list[str]:
        full = [at for at, text in enumerate(texts) if text.strip()]
        there = [texts[at] for at in full]
        with preserved_rng():
            torch.manual_seed(Draws(b"%d:back_translation:0:%b" % (seed, key_bytes(rows[0]))).below(2**63))
            for model, tokenizer in ways if there else ():
                tokens = tokens_of(model, tokenizer, there)
                there = tokenizer.batch_decode(model.generate(**tokens, **generation), skip_special_tokens=True)
        back = list(texts)
        for at, text in zip(full, there):
            back[at] = text.strip() or texts[at]  # a model that says nothing leaves the text
        return back

    return mapped(dataset, column, translate, batch_size, "back-translation")
