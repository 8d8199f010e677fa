"""What label noise and image corruption refuse, with the way out."""

import math

import datasets
import numpy as np
import PIL.Image
import pytest
from noise_runs import image_dataset, labelled, random_pixels

from hf_sat.noise import corrupt_image, corrupt_images, inject_label_noise, transition_matrix

LABELS = labelled([0, 1, 2, 1], text=list("abcd"))
TAGS = labelled([[0, 1], [2, 0]], text=list("ab"))
NAMED = LABELS.cast_column("labels", datasets.ClassLabel(names=["cat", "dog", "eel"]))


@pytest.mark.parametrize(
    "dataset, options, message",
    [
        (datasets.DatasetDict(train=LABELS), {}, "DatasetDict.*one split"),
        (LABELS.to_iterable_dataset(), {}, "IterableDataset.*one split"),
        (LABELS, {"label_column": "label"}, "label_column='label'.*did you mean 'labels'"),
        (LABELS, {"label_column": "qqq"}, "label_column='qqq'.*columns are"),
        (inject_label_noise(LABELS, 0), {}, r"clean_labels.*remove_columns\('clean_labels'\)"),
        (labelled([0.0, 1.0]), {}, "labels.*double.*cast_column"),
        (labelled(["a", "b"]), {}, "labels.*string.*class_encode_column"),
        (labelled([[0.5], [1.0]]), {}, "labels.*double.*cast_column"),
        (labelled([0, None, 1]), {}, "labels.*None.*-100"),
        (labelled([[0, None], [1]]), {}, "labels.*None.*-100"),
        (labelled([0, 1, -1]), {}, r"label -1 in row 2, outside \[0, 2\)"),
        (labelled([[0], [], [1, 7]]), {"num_classes": 3}, r"label 7 in row 2, outside \[0, 3\)"),
        (labelled([0, 0, 0]), {}, "num_classes=1:.*2 or more"),
        (LABELS.select([]), {}, "num_classes=0:.*2 or more"),
        (LABELS, {"num_classes": 2.5}, "num_classes=2.5"),
        (NAMED, {"num_classes": 4}, "num_classes=4, but ClassLabel has 3"),
        (LABELS, {"kind": "flip"}, "kind='flip'.*symmetric, pair, asymmetric, instance"),
        *[(LABELS, {"rate": rate}, "rate=.*no share") for rate in (-0.1, 1.0, math.nan, math.inf, "0.4", None)],
        *[(LABELS, {"seed": seed}, "seed=.*no integer") for seed in (-1, None, 0.5)],
        (LABELS, {"kind": "asymmetric"}, "transition=None"),
        (LABELS, {"transition": {0: 1}}, "transition is given but kind='symmetric'"),
        (LABELS, {"kind": "pair", "feature_columns": ["text"]}, "feature_columns is given but kind='pair'"),
        (TAGS, {"kind": "instance"}, "'instance'.*positions within rows"),
        (LABELS, {"kind": "instance", "feature_columns": ["txt"]}, "feature_columns='txt'.*'text'"),
        (LABELS, {"kind": "instance", "feature_columns": ["labels"]}, "feature_columns: 'labels'"),
        (
            labelled([0, 1], b=[b"a", b"b"]),
            {"kind": "instance", "feature_columns": ["b"]},
            "feature_columns: 'b'",
        ),
        (labelled([0, 1]), {"kind": "instance"}, "feature_columns: no column"),
        (
            labelled([0, 1], v=[[0.5], [1.0, 2.0]]),
            {"kind": "instance"},
            "feature_columns: rows of 'v' differ",
        ),
    ],
)
def test_wrong_input_is_refused_by_name(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        inject_label_noise(dataset, **{"rate": 0.5, **options})


@pytest.mark.parametrize(
    "dataset, rate, transition, message",
    [
        (LABELS, 0.5, {0: 1}, "2 wrong labels, but transition lets only 1 of 4"),
        (LABELS, 0.5, {0: 3}, r"class 3; use an id in \[0, 3\)"),
        (LABELS, 0.5, {"cat": 1}, "class 'cat'.*no ClassLabel"),
        (NAMED, 0.5, {"cow": 1}, "class 'cow'.*'cat', 'dog', 'eel'"),
        (LABELS, 0.5, {0: {1: -1.0}}, "finite and not negative"),
        (LABELS, 0.5, {0: {1: math.nan}}, "finite and not negative"),
        (LABELS, 0.5, {0: {1: "much"}}, "0 -> 1 the weight 'much'"),
        (LABELS, 0.5, np.eye(4), r"shape \(4, 4\), not \(3, 3\)"),
        (LABELS, 0.5, [[1, 0], [1]], r"no \(3, 3\) matrix"),
        (LABELS, 0.5, "swap", r"'swap' is no \(3, 3\) matrix"),
        (LABELS, None, {0: 1}, "rate=None needs a transition matrix"),
        (LABELS, None, np.ones((3, 3)), "rows sum to 1"),
        (LABELS, 1.5, np.eye(3), "rate=1.5"),
    ],
)
def test_wrong_transitions_are_refused(dataset, rate, transition, message):
    with pytest.raises(ValueError, match=message):
        inject_label_noise(dataset, rate, "asymmetric", transition=transition)


@pytest.mark.parametrize(
    "clean, noisy, size, message",
    [
        ([0, 1], [0], 2, "2 clean but 1 noisy"),
        ([0, 2], [0, 1], 2, "clean holds 2"),
        ([0, 1], [0, -100], 2, "noisy holds -100"),
        ([0.5, 1], [0, 1], 2, "clean holds float64"),
        ([0, 0], [0, 0], 1, "num_classes=1"),
    ],
)
def test_wrong_label_pairs_are_refused(clean, noisy, size, message):
    with pytest.raises(ValueError, match=message):
        transition_matrix(clean, noisy, size)


IMAGES = image_dataset(random_pixels(4, (3, 3)))


@pytest.mark.parametrize(
    "dataset, options, message",
    [
        (datasets.DatasetDict(train=IMAGES), {}, "one split"),
        (IMAGES, {"image_column": "img"}, "image_column='img'.*'image'"),
        (IMAGES, {"kind": "blur"}, "kind='blur'.*gaussian"),
        (IMAGES, {"rate": 1}, "rate=1"),
        (IMAGES, {"seed": -2}, "seed=-2"),
        (corrupt_images(IMAGES, 0.5), {}, r"remove_columns\('is_corrupted'\)"),
        (LABELS, {"image_column": "text"}, r"image_column='text'.*cast_column it to datasets.Image\(\)"),
        (image_dataset([None, None]), {}, "no image in row"),
        (image_dataset([PIL.Image.new("P", (3, 3))] * 2), {}, r"mode 'P' in row .*Image\(mode='RGB'\)"),
    ],
)
def test_wrong_image_input_is_refused(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        corrupt_images(dataset, **{"rate": 0.5, **options})


def test_a_mode_set_on_the_column_makes_other_modes_usable():
    palette = image_dataset([PIL.Image.new("P", (3, 3))] * 2).cast_column("image", datasets.Image(mode="RGB"))
    assert corrupt_images(palette, 0.5)[0]["image"].mode == "RGB"


@pytest.mark.parametrize(
    "pixels, kind, permutation, message",
    [
        (np.zeros((2, 2)), "gaussian", None, "float64"),
        (np.zeros(4, np.uint8), "gaussian", None, r"\(4,\)"),
        (np.zeros((2, 2), np.uint8), "blur", None, "kind='blur'"),
        (np.zeros((2, 2), np.uint8), "gaussian", [0, 1, 2, 3], "permutation is given"),
        (np.zeros((2, 2), np.uint8), "shuffled_pixels", None, "permutation=None"),
        (np.zeros((2, 2), np.uint8), "shuffled_pixels", [0, 1, 2, 2], "the 4 positions"),
        (np.zeros((2, 2), np.uint8), "shuffled_pixels", [0.0, 1, 2, 3], "the 4 positions"),
    ],
)
def test_wrong_pixels_are_refused(pixels, kind, permutation, message):
    with pytest.raises(ValueError, match=message):
        corrupt_image(pixels, kind, np.random.default_rng(0), permutation)
