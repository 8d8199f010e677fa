"""The corruption of images."""

import io
import random

import datasets
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_runs import image_dataset, quick, random_pixels, rates

from hf_sat.noise import corrupt_image, corrupt_images, images


def stored(dataset):
    return dataset.cast_column("image", datasets.Image(decode=False))["image"][:]


@pytest.mark.parametrize("shape, mode", [((6, 5), "L"), ((6, 5, 2), "LA"), ((6, 5, 3), "RGB"), ((6, 5, 4), "RGBA")])
@pytest.mark.parametrize("kind", images.CORRUPTIONS)
def test_corrupted_images_keep_size_and_mode_and_the_others_their_bytes(shape, mode, kind):
    dataset = image_dataset(random_pixels(10, shape))
    states = random.getstate(), np.random.get_state()[1].tolist()
    result = corrupt_images(dataset, 0.34, kind, seed=3)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())
    changed = [a != b for a, b in zip(stored(dataset), stored(result), strict=True)]
    assert result["is_corrupted"][:] == changed and sum(changed) == 3
    assert result.features["image"] == dataset.features["image"]
    assert {(image.mode, image.size) for image in result["image"]} == {(mode, (5, 6))}
    assert stored(corrupt_images(dataset, 0.34, kind, seed=3)) == stored(result)
    assert stored(corrupt_images(dataset, 0.34, kind, seed=4)) != stored(result)


@quick
@given(count=st.integers(0, 12), rate=rates)
def test_exactly_the_asked_share_of_the_images_is_corrupted(count, rate):
    result = corrupt_images(image_dataset(random_pixels(count, (3, 4)) if count else []), rate, "gaussian")
    assert sum(result["is_corrupted"][:]) == round(rate * count)


@pytest.mark.parametrize("kind", images.CORRUPTIONS)
def test_the_noise_of_a_row_does_not_depend_on_the_other_rows(kind):
    pixels = random_pixels(40, (8, 8, 3))
    long, short = (corrupt_images(image_dataset(pixels[:n]), 0.8, kind, seed=5) for n in (40, 20))
    both = [i for i in range(20) if long[i]["is_corrupted"] and short[i]["is_corrupted"]]
    assert len(both) > 5
    assert all(np.array_equal(long[i]["image"], short[i]["image"]) for i in both)


@pytest.mark.parametrize("kind, alike", [("random_pixels", False), ("shuffled_pixels", True)])
def test_pixel_orders_are_shared_only_by_shuffled_pixels(kind, alike):
    positions = np.stack([np.arange(64).reshape(8, 8)] * 10).astype(np.uint8)
    result = corrupt_images(image_dataset(positions), 0.9, kind)
    orders = {tuple(np.ravel(row["image"])) for row in result if row["is_corrupted"]}
    assert all(sorted(order) == list(range(64)) and order != tuple(range(64)) for order in orders)
    assert len(orders) == (1 if alike else 9)


def test_gaussian_pixels_have_each_images_own_moments():
    mean, std = np.array([90.0, 120.0, 160.0]), np.array([5.0, 12.0, 20.0])
    rng = np.random.default_rng(0)
    pixels = np.rint(mean + std * rng.standard_normal((80, 90, 3))).astype(np.uint8)
    noisy = corrupt_image(pixels, "gaussian", rng)
    assert noisy.mean(axis=(0, 1)) == pytest.approx(pixels.mean(axis=(0, 1)), abs=1)
    assert noisy.std(axis=(0, 1)) == pytest.approx(pixels.std(axis=(0, 1)), rel=0.05)
    assert abs(np.corrcoef(noisy[..., 2].ravel(), pixels[..., 2].ravel())[0, 1]) < 0.06
    extremes = np.array([[0, 255] * 40] * 40, dtype=np.uint8)  # a wrap-around would lose both ends
    assert {0, 255} <= set(np.unique(corrupt_image(extremes, "gaussian", rng)))
    assert (np.mean(corrupt_image(extremes, "gaussian", rng) == 255)) == pytest.approx(0.16, abs=0.03)


@quick
@given(seed=st.integers(0, 99), shape=st.sampled_from([(1, 1), (3, 4), (2, 5, 3)]), random_order=st.booleans())
def test_permuted_images_hold_the_same_pixels(seed, shape, random_order):
    pixels = random_pixels(1, shape, seed)[0]
    before, rng = pixels.copy(), np.random.default_rng(seed)
    order = None if random_order else rng.permutation(shape[0] * shape[1])
    noisy = corrupt_image(pixels, "random_pixels" if random_order else "shuffled_pixels", rng, order)
    rows = [x.reshape(shape[0] * shape[1], -1).tolist() for x in (pixels, noisy)]
    assert np.array_equal(pixels, before) and noisy.shape == shape and noisy.dtype == np.uint8
    assert sorted(rows[0]) == sorted(rows[1])
    assert random_order or rows[1] == [rows[0][i] for i in order]


def test_files_stay_files_and_undecoded_columns_undecoded(tmp_path):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(4)]
    for path, pixels in zip(paths, random_pixels(4, (6, 6, 3)), strict=True):
        PIL.Image.fromarray(pixels).save(path)
    result = corrupt_images(image_dataset(paths, decode=False), 0.5, "random_pixels")
    assert result.features["image"] == datasets.Image(decode=False)
    for path, row in zip(paths, result, strict=True):
        if row["is_corrupted"]:
            assert PIL.Image.open(io.BytesIO(row["image"]["bytes"])).mode == "RGB"
        else:
            assert row["image"] == {"bytes": None, "path": path}
