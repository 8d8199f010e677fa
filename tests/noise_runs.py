"""Data sets that the tests of label noise share."""

import datasets
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

quick = settings(max_examples=25, deadline=None, database=None)


rates = st.floats(0, 1, exclude_max=True)


def labelled(labels, **columns):
    return datasets.Dataset.from_dict({"labels": labels, **columns})


def image_dataset(pixels, **options):
    features = datasets.Features({"image": datasets.Image(**options)})
    return datasets.Dataset.from_dict({"image": list(pixels)}, features=features)


def random_pixels(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
