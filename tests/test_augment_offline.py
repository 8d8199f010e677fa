"""Back-translation and masked-LM substitution, by tiny models that the tests make."""

import random

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from hf_sat.augment import back_translation, masked_lm_substitution

WORDS = ["the", "film", "movie", "was", "good", "bad", "a", "dog", "runs", "home", "quick", "never", "ten", "it"]
TEXTS = [
    "The film was good, a dog runs home.",
    "It was never bad!",
    "",
    "!? ... 10",
    "the quick dog (was) home; ten film the movie was good a bad dog runs home " * 3,
    "unknown xyzzy",
    "[MASK] was good and bad",
]


@pytest.fixture(scope="module")
def masked():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing", ".", ",", "!", "(", ")", "10"]
    bare = Tokenizer(models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bare.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, model_max_length=24, **names)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokens), **sizes, max_position_embeddings=64)
    return BertForMaskedLM(config), tokenizer


@pytest.fixture(scope="module")
def translators():
    tokens = ["<pad>", "</s>", "<unk>", *WORDS, ".", ","]
    bare = Tokenizer(models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    config = {"vocab_size": len(tokens), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(T5ForConditionalGeneration(T5Config(**config, decoder_start_token_id=0)))
    return made, tokenizer


def rows(texts=TEXTS):
    return datasets.Dataset.from_dict({"text": texts, "label": list(range(len(texts)))})


def states():
    return random.getstate(), torch.get_rng_state().tolist()


# ---- masked language model ----


def test_words_give_way_to_whole_words_of_the_model(masked):
    result = masked_lm_substitution(rows(), "text", *masked, rate=0.5, seed=3)
    assert result.column_names == ["text", "label", "original_text"] and result["original_text"][:] == TEXTS
    for before, after in zip(TEXTS, result["text"], strict=True):
        assert [sign for sign in before if not sign.isalpha()] == [sign for sign in after if not sign.isalpha()]
        for old, new in zip(before.split(), after.split(), strict=True):
            assert old == new or (new.strip(".,!();").lower() in WORDS and old[0].isupper() == new[0].isupper())
    assert [result["text"][at] == TEXTS[at] for at in (0, 2, 3, 6)] == [False, True, True, True]
    tail = TEXTS[4].split()[-20:]
    assert result["text"][4].split()[-20:] == tail  # cut off by the model's length


@pytest.mark.parametrize("other", [{"batch_size": 1}, {"batch_size": 3}])
def test_the_seed_and_the_row_decide_not_the_batch(masked, other):
    before = states()
    first = masked_lm_substitution(rows(), "text", *masked, rate=0.4, seed=1)["text"][:]
    assert states() == before
    torch.manual_seed(9)
    assert masked_lm_substitution(rows(), "text", *masked, rate=0.4, seed=1, **other)["text"][:] == first
    assert masked_lm_substitution(rows(), "text", *masked, rate=0.4, seed=2)["text"][:] != first


def test_the_rate_is_the_share_of_words(masked):
    texts = [" ".join(random.Random(at).choices(WORDS, k=10)) for at in range(300)]
    result = masked_lm_substitution(rows(texts), "text", *masked, rate=0.25, batch_size=100)
    changed = [
        a != b for x, y in zip(texts, result["text"], strict=True) for a, b in zip(x.split(), y.split(), strict=True)
    ]
    assert sum(changed) / 3000 == pytest.approx(0.25, abs=0.01)


def test_models_may_come_from_a_folder_and_words_may_be_locked(masked, tmp_path):
    for part in masked:
        part.save_pretrained(tmp_path)
    locked = masked_lm_substitution(rows(), "text", tmp_path, rate=1.0, locked=["negations", "dog"], device="cpu")
    assert "never" in locked["text"][1] and "dog" in locked["text"][0]
    assert masked_lm_substitution(rows(), "text", *masked, rate=1.0, top_k=1)["text"][0] != TEXTS[0]


# ---- back-translation ----


def test_texts_go_there_and_back(translators):
    (there, back), tokenizer = translators
    before = states()
    settings = {"min_new_tokens": 4, "max_new_tokens": 6, "num_beams": 2, "suppress_tokens": [0, 2]}
    result = back_translation(rows(), "text", there, back, tokenizer, tokenizer, **settings)
    assert states() == before
    assert result["original_text"][:] == TEXTS and result["text"][2] == ""
    assert sum(a != b for a, b in zip(TEXTS, result["text"], strict=True)) >= 4
    assert all(result["text"][at] for at in range(len(TEXTS)) if at != 2)
    again = back_translation(rows(), "text", there, back, tokenizer, tokenizer, batch_size=1, **settings)
    assert again["text"][:] == result["text"][:]


def test_samples_depend_on_the_seed(translators, tmp_path):
    (there, back), tokenizer = translators
    there.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    settings = {"min_new_tokens": 4, "max_new_tokens": 6, "do_sample": True}
    first, second, other = (
        back_translation(rows(), "text", str(tmp_path), back, None, tokenizer, seed=seed, **settings)["text"][:]
        for seed in (1, 1, 2)
    )
    assert first == second != other


# ---- refusals ----


def test_wrong_settings_are_refused(masked, translators):
    model = masked[0]
    for call, message in [
        (
            lambda: masked_lm_substitution(rows(["a", None]), "text", *masked),
            "column 'text', from row 0 on: row 1 is None",
        ),
        (lambda: masked_lm_substitution(rows(), "txt", *masked), "column='txt'"),
        (lambda: masked_lm_substitution(rows()[:], "text", *masked), "dataset='dict'"),
        (lambda: masked_lm_substitution(rows(), "text", *masked, rate=2), "rate=2"),
        (lambda: masked_lm_substitution(rows(), "text", *masked, top_k=0), "top_k=0"),
        (lambda: masked_lm_substitution(rows(), "text", *masked, seed="x"), "seed='x'"),
        (lambda: masked_lm_substitution(rows(), "text", model), "tokenizer=None"),
        (lambda: masked_lm_substitution(rows(), "text", model, translators[1]), "no mask token"),
        (
            lambda: masked_lm_substitution(masked_lm_substitution(rows(), "text", *masked), "text", *masked),
            "augmented already",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
