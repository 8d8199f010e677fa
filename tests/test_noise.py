"""Label noise: exact shares, the distribution of each kind, and what the new data set keeps."""

import math
import random
import zlib

import datasets
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_runs import labelled, quick, rates

from hf_sat.noise import checks, corrupt_images, draws, inject_label_noise, transition_matrix
from hf_sat.noise import features as instance_features

ASYMMETRIC = np.array([[0.9, 0.1, 0.0, 0.0], [0.0, 0.5, 0.3, 0.2], [0.0, 0.0, 1.0, 0.0], [0.4, 0.0, 0.0, 0.6]])


label_lists = st.lists(st.sampled_from([0, 1, 2, 3, checks.IGNORED]), min_size=1, max_size=60)
kinds_for_rows = st.sampled_from(["symmetric", "pair", "instance"])


def noised(dataset, rate, kind="symmetric", **options):
    """(clean, noisy) arrays of a dataset with the column `labels`."""
    result = inject_label_noise(dataset, rate, kind, **options).with_format("numpy")
    return result["clean_labels"][:], result["labels"][:]


def shares(values, size):
    return np.bincount(values, minlength=size) / len(values)


# ---- the exact share, and what stays --------------------------------------------------------------------------------


@quick
@given(labels=label_lists, rate=rates, kind=kinds_for_rows, seed=st.integers(0, 2**40))
def test_exactly_the_asked_share_of_the_kept_labels_ends_wrong(labels, rate, kind, seed):
    dataset = labelled(labels, x=np.linspace(0, 1, len(labels)))
    clean, noisy = noised(dataset, rate, kind, seed=seed, num_classes=4)
    ignored = np.array(labels) == checks.IGNORED
    assert clean.tolist() == labels
    assert (clean != noisy).sum() == round(rate * (~ignored).sum())
    assert (noisy[ignored] == checks.IGNORED).all()
    assert ((noisy[~ignored] >= 0) & (noisy[~ignored] < 4)).all()


@quick
@given(rows=st.lists(label_lists | st.just([]), min_size=1, max_size=12), rate=rates, pair=st.booleans())
def test_lists_of_labels_count_positions_and_keep_their_lengths(rows, rate, pair):
    features = datasets.Features({"labels": datasets.List(datasets.Value("int64"))})
    dataset = datasets.Dataset.from_dict({"labels": rows}, features=features)
    result = inject_label_noise(dataset, rate, "pair" if pair else "symmetric", num_classes=4)
    assert result["clean_labels"][:] == rows
    assert [len(row) for row in result["labels"]] == [len(row) for row in rows]
    clean, noisy = (np.array([label for row in result[name] for label in row]) for name in ("clean_labels", "labels"))
    kept = clean != checks.IGNORED
    assert (clean != noisy).sum() == (clean != noisy)[kept].sum() == round(rate * kept.sum())


@quick
@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_asymmetric_noise_stays_on_the_transition_and_reaches_every_rate_it_allows(labels, share, seed):
    able = int((np.array(labels) != 2).sum())  # class 2 has no way out
    count = min(int(share * able), len(labels) - 1)
    clean, noisy = noised(labelled(labels), count / len(labels), "asymmetric", transition=ASYMMETRIC, num_classes=4)
    assert (clean != noisy).sum() == count
    assert (ASYMMETRIC[clean, noisy] > 0).all()


@pytest.mark.parametrize("kind", ["symmetric", "pair", "asymmetric", "instance"])
def test_the_seed_alone_decides_and_global_random_states_rest(kind):
    options = {"transition": {0: 1, 1: 2, 2: {0: 1, 1: 1}}} if kind == "asymmetric" else {}
    dataset = labelled([0, 1, 2] * 60, text=[f"word{i % 7} and {i}" for i in range(180)])

    def run(seed):
        return inject_label_noise(dataset, 0.5, kind, seed=seed, **options)["labels"][:]

    before = random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    first = run(7)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2])
    random.seed(1), np.random.seed(1)
    assert run(7) == first
    assert run(8) != first


# ---- how labels are picked, and where they go -----------------------------------------------------------------------


def expected_transition(kind, rate, size):
    if kind == "symmetric":
        return np.full((size, size), rate / (size - 1)) + np.eye(size) * (1 - rate - rate / (size - 1))
    return (1 - rate) * np.eye(size) + rate * np.eye(size)[(np.arange(size) + 1) % size]


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_class_noise_has_its_transition_matrix(kind, rate):
    labels = np.random.default_rng(0).integers(0, 4, 40_000)
    clean, noisy = noised(labelled(labels), rate, kind)
    assert transition_matrix(clean, noisy, 4) == pytest.approx(expected_transition(kind, rate, 4), abs=0.02)


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("as_mapping", [False, True])
def test_asymmetric_noise_takes_from_each_class_by_its_off_diagonal_sum(names, as_mapping):
    labels = np.random.default_rng(0).choice(4, 40_000, p=[0.4, 0.3, 0.2, 0.1])
    dataset = labelled(labels)
    keys = dict(enumerate("abcd" if names else range(4)))
    if names:
        dataset = dataset.cast_column("labels", datasets.ClassLabel(names=list("abcd")))
    mapping = {keys[0]: {keys[1]: 0.1}, keys[1]: {keys[2]: 0.3, keys[3]: 0.2}, keys[3]: {keys[0]: 0.4}}
    clean, noisy = noised(dataset, 0.1, "asymmetric", transition=mapping if as_mapping else ASYMMETRIC)
    off = ASYMMETRIC * (1 - np.eye(4))
    picked = 0.1 * len(labels) * off.sum(1) / off.sum(1)[labels].sum()  # share of each class that changes
    expected = off / off.sum(1, keepdims=True).clip(1e-9) * picked[:, None]
    assert transition_matrix(clean, noisy, 4) == pytest.approx(expected + np.diag(1 - picked), abs=0.015)


def test_without_a_rate_labels_follow_the_rows_of_the_matrix():
    labels = np.random.default_rng(0).integers(0, 4, 40_000)
    clean, noisy = noised(labelled(labels), None, "asymmetric", transition=ASYMMETRIC.tolist())
    assert transition_matrix(clean, noisy, 4) == pytest.approx(ASYMMETRIC, abs=0.02)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [0.5, 0.4, 0.3, 0.2, 0.1], [9, 1, 1, 0.5, 0]])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_are_picked_in_proportion_to_their_weight_capped_at_certainty(weights, count):
    rng = np.random.default_rng(0)
    weights = np.array(weights, dtype=float)
    picks = np.array([draws.pick(weights, count, rng) for _ in range(4000)])
    assert all(len(set(pick)) == count for pick in picks.tolist())
    low, high = 0.0, 1e6  # bisect the factor for which the capped chances add up to the count
    for _ in range(100):
        factor = (low + high) / 2
        low, high = (factor, high) if np.minimum(1, factor * weights).sum() < count else (low, factor)
    assert np.bincount(picks.ravel(), minlength=5) / 4000 == pytest.approx(np.minimum(1, high * weights), abs=0.04)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.95])
def test_flip_rates_are_a_truncated_normal(rate):
    rates = draws._truncated_normal(rate, 100_000, np.random.default_rng(0))

    def density(z):
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    low, high = -rate / 0.1, (1 - rate) / 0.1
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    assert rates.min() >= 0 and rates.max() <= 1
    assert rates.mean() == pytest.approx(rate + 0.1 * (density(low) - density(high)) / mass, abs=0.002)


def test_instance_noise_draws_from_a_softmax_that_is_linear_in_the_features():
    labels = np.zeros(60_000, dtype=int)

    def targets(x):
        features = np.tile(np.array(x), (len(labels), 1))
        return shares(draws.instance_noise(labels, 0.9, 4, features, np.random.default_rng(5))[1], 4)

    once, twice = targets([0.5, -0.3]), targets([1.0, -0.6])
    assert once[0] == 0 and np.ptp(once[1:]) > 0.1
    assert twice == pytest.approx(once**2 / (once**2).sum(), abs=0.02)  # doubled scores square the odds
    assert targets([0.0, 0.0])[1:] == pytest.approx(1 / 3, abs=0.02)


def two_groups(kind, member):
    """One row's input, of which the two groups have different ones."""
    pixel = np.full((5, 7, 3), 200 if member else 20, np.uint8)
    return {
        "text": "a fine film" if member else "a dull book",
        "ids": [101, 7, 9] if member else [101, 8],
        "number": 3.5 if member else -1.0,
        "vector": [1.0, 0.0, 2.0] if member else [0.0, 1.0, 2.0],
        "grid": [[0, 255], [255, 0]] if member else [[255, 0], [0, 255]],
        "image": PIL.Image.fromarray(pixel[: 5 - member]),
        "constant": 4.25,
    }[kind]


@pytest.mark.parametrize("kind", ["text", "ids", "number", "vector", "grid", "image", "constant"])
def test_instance_noise_depends_on_inputs_of_every_type(kind):
    member = np.random.default_rng(0).integers(0, 2, 400)
    inputs = [two_groups(kind, m) for m in member]
    dataset = labelled([0] * 400, x=inputs, other=list("ab") * 200)
    _, noisy = noised(dataset, 0.5, "instance", num_classes=5, feature_columns=["x"])
    first, second = (shares(noisy[(member == m) & (noisy != 0)], 5) for m in (0, 1))
    distance = np.abs(first - second).sum() / 2
    assert distance < 0.25 if kind == "constant" else distance > 0.7


def test_features_are_the_usable_columns_unless_named():
    dataset = labelled([0, 1, 2] * 50, text=[f"w{i}" for i in range(150)], when=[b"bytes"] * 150)
    both = dataset.add_column("number", np.arange(150.0))
    by_default, named = (
        inject_label_noise(both, 0.5, "instance", feature_columns=columns)["labels"][:]
        for columns in (None, ["text", "number"])
    )
    assert by_default == named
    assert by_default != inject_label_noise(both, 0.5, "instance", feature_columns=["text"])["labels"][:]


def test_constant_features_standardise_to_zero():
    x = np.column_stack([np.full(7, 0.1), np.arange(7) * 1e6])  # seven times 0.1 has a mean a rounding away
    assert x[:, 0].std() > 0
    standard = instance_features._standardised(x)
    assert standard[:, 0] == pytest.approx(np.zeros(7), abs=1e-6)
    assert (standard[:, 1].mean(), standard[:, 1].std()) == pytest.approx((0, 1))


def test_missing_inputs_count_as_empty():
    picture = PIL.Image.fromarray(np.zeros((4, 4), np.uint8))
    columns = {"text": ["a", None, "b", "c"], "number": [1.0, None, 2.0, 3.0], "ids": [[1], None, [2], []]}
    dataset = labelled([0, 1] * 2, image=[picture, None, picture, picture], **columns)
    clean, noisy = noised(dataset, 0.5, "instance")
    assert (clean != noisy).sum() == 2


def test_words_are_hashed_alike_on_every_machine():
    buckets = [
        (zlib.crc32(word) * 0x9E3779B97F4A7C15 % 2**64) >> (64 - instance_features.HASH_BITS)
        for word in (b"a", b"film")
    ]
    assert np.flatnonzero(instance_features._word_bags(["A film film"])).tolist() == sorted(buckets)
    assert instance_features._word_bags(["A film film", None])[:, buckets] == pytest.approx(
        np.array([[1 / 3, 2 / 3], [0, 0]])
    )


# ---- what the new dataset keeps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feature",
    [
        datasets.ClassLabel(names=["a", "b", "c"]),
        datasets.Value("int8"),
        datasets.Value("int32"),
        datasets.Value("uint16"),
        datasets.List(datasets.ClassLabel(names=["a", "b", "c"])),
        datasets.List(datasets.Value("int32")),
        datasets.List(datasets.Value("int64"), length=2),
        datasets.LargeList(datasets.Value("int16")),
    ],
    ids=str,
)
def test_features_and_column_order_stay(feature):
    is_list = hasattr(feature, "feature")
    labels = [[0, 1], [2, 2], [1, 0], [0, 0]] if is_list else [0, 1, 2, 0]
    features = datasets.Features({"labels": feature, "x": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict({"labels": labels, "x": list("wxyz")}, features=features)
    result = inject_label_noise(dataset, 0.5)
    assert result.column_names == ["labels", "x", "clean_labels"]
    assert result.features["labels"] == result.features["clean_labels"] == feature
    assert result.data.schema.field("labels").type == dataset.data.schema.field("labels").type
    assert (result["clean_labels"][:], result["x"][:]) == (labels, list("wxyz"))
    assert (np.array(result["labels"][:]) != np.array(labels)).sum() == (4 if is_list else 2)
    assert dataset["labels"][:] == labels and "clean_labels" not in dataset.column_names


def upper(batch):
    return {"text": [text.upper() for text in batch["text"]], "labels": batch["labels"]}


@pytest.mark.parametrize("job", ["labels", "images"])
def test_formats_and_transforms_stay(job):
    pixels = [np.full((2, 2), i, np.uint8) for i in range(4)]
    features = {
        "labels": datasets.Value("int64"),
        "text": datasets.Value("string"),
        "image": datasets.Image(),
    }
    rows = {"labels": [0, 1, 0, 1], "text": list("abcd"), "image": pixels}
    dataset = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    noise_it, new = {
        "labels": (lambda d: inject_label_noise(d, 0.5), "clean_labels"),
        "images": (lambda d: corrupt_images(d, 0.5), "is_corrupted"),
    }[job]
    limited = noise_it(dataset.with_format("torch", columns=["labels"]))
    assert limited.format["type"] == "torch" and set(limited[0]) == {"labels"}
    assert set(noise_it(dataset.with_format("numpy"))[0]) == {"labels", "text", "image", new}
    transformed = noise_it(dataset.with_transform(upper))
    assert transformed[:]["text"] == list("ABCD") and new in transformed.column_names


def test_rows_of_a_shuffled_selection_keep_together():
    dataset = labelled([i % 3 for i in range(30)], i=range(30)).shuffle(seed=1).select(range(20))
    result = inject_label_noise(dataset, 0.25)
    assert [i % 3 for i in result["i"]] == result["clean_labels"][:]
    assert sum(a != b for a, b in zip(result["labels"][:], result["clean_labels"][:], strict=True)) == 5


# ---- transition_matrix ----------------------------------------------------------------------------------------------


@quick
@given(pairs=st.lists(st.tuples(st.sampled_from([0, 1, 2, checks.IGNORED]), st.integers(0, 3)), max_size=40))
def test_transition_matrix_counts(pairs):
    matrix = transition_matrix([a for a, _ in pairs], [b for _, b in pairs], 4)
    for i in range(4):
        targets = [b for a, b in pairs if a == i]
        expected = [targets.count(j) / len(targets) for j in range(4)] if targets else np.eye(4)[i]
        assert matrix[i] == pytest.approx(np.array(expected))


def test_transition_matrix_reads_columns_tensors_and_lists_of_labels():
    import torch

    clean, noisy = [[0, 1], [], [1, -100, 0]], [[0, 0], [], [1, -100, 1]]
    column = labelled(clean, noisy=noisy)
    expected = [[0.5, 0.5], [0.5, 0.5]]
    assert transition_matrix(column["labels"], column["noisy"], 2).tolist() == expected
    assert transition_matrix(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1]), 2).tolist() == expected
