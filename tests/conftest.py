"""Nothing here reaches a network, and every run has one thread, so that runs compare bit by bit."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import datasets
import pytest
import torch
import transformers

torch.set_num_threads(1)
datasets.disable_progress_bars()
transformers.logging.disable_progress_bar()


def pytest_collection_finish(session):
    """accelerate collects garbage at each `train()`, which takes most of a small run over all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def late_imports():
    """The same for what the tests of a file imported late."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def runs(tmp_path):
    """A fresh folder for checkpoints, as a string."""
    return str(tmp_path / "run")
