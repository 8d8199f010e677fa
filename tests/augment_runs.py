"""What the tests of text augmentation share."""

import random

OWN = ("deletion", "swap", "insertion", "case", "shuffle", "shuffle_sentences", "split")


WORDS = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("alo", "emi", "ino", "oru", "uta")]


def sentence(size, seed=0):
    return " ".join(random.Random(seed).choices(WORDS, k=size))
