"""Storage of soft targets: the k largest entries and the tail mass against the dense form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import assert_same_tensors, make_trainer, text_data, weights

from hf_sat import recipe
from hf_sat.config import LabelCorrectionArguments
from hf_sat.soft_targets import DenseTargets, TopKTargets, pieces
from hf_sat.state import LabelState

CPU = torch.device("cpu")


def distributions(rows, classes, seed):
    return (3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 9), st.integers(0, 100))
def test_top_k_keeps_the_largest_entries_and_the_mass(rows, classes, k, seed):
    targets = distributions(rows, classes, seed)
    storage = TopKTargets(k, rows, classes, torch.float32, CPU)
    at = torch.randperm(rows)
    storage.write(at, targets)
    read = storage.read(at)
    torch.testing.assert_close(read.sum(dim=1), torch.ones(rows))
    values, kept = targets.topk(min(k, classes), dim=1)
    assert torch.equal(read.gather(1, kept), values)
    assert torch.equal(storage.largest(at), targets.argmax(dim=1))
    # What is not kept differs from the truth by no more than the tail.
    tail = 1 - values.sum(dim=1, keepdim=True)
    assert ((read - targets).abs() <= tail + 1e-6).all()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 3), st.integers(0, 100))
def test_top_k_of_all_classes_is_dense(rows, classes, more, seed):
    targets = distributions(rows, classes, seed)
    forms = [
        DenseTargets(rows, classes, torch.float32, CPU),
        TopKTargets(classes + more, rows, classes, torch.float32, CPU),
    ]
    for form in forms:
        form.write(torch.arange(rows), targets)
    assert torch.equal(*(form.read(torch.arange(rows)) for form in forms))


@pytest.mark.parametrize("label", [0, 3, 4])
def test_one_hot_targets_are_exact(label):
    storage = TopKTargets(2, 1, 5, torch.float32, CPU)
    storage.write(torch.tensor([0]), torch.eye(5)[[label]])
    assert torch.equal(storage.read(torch.tensor([0])), torch.eye(5)[[label]])


def test_bytes():
    """1,000 classes at k = 8 take 48 bytes a row, so ImageNet takes 61 MB instead of 5.1 GB."""
    storage = TopKTargets(8, 9, 1000, torch.float32, CPU)
    assert sum(tensor.nbytes for tensor in storage.tensors().values()) == 10 * 48
    wide = TopKTargets(8, 9, 40_000, torch.float16, CPU)
    assert sum(tensor.nbytes for tensor in wide.tensors().values()) == 10 * 48


def test_pieces_cover_all_rows_once(monkeypatch):
    monkeypatch.setattr("hf_sat.soft_targets.PIECE", 7)
    storage = DenseTargets(10, 3, torch.float32, CPU)
    parts = list(pieces(storage, CPU))
    assert torch.cat(parts).tolist() == list(range(10)) and max(map(len, parts)) == 2


def end(folder, **storage):
    trainer = make_trainer(folder, data=text_data(40), sat_start_epoch=0.5, sat_momentum=0.6, **storage)
    trainer.train()
    return weights(trainer), trainer.label_report().to_pandas()


@pytest.mark.parametrize(
    "storage, exact",
    [({"sat_top_k": 4}, True), ({"sat_target_device": "cpu"}, True), ({"sat_target_dtype": "float16"}, False)],
)
def test_runs_with_other_storage(tmp_path, storage, exact):
    dense, other = end(str(tmp_path / "dense")), end(str(tmp_path / "other"), **storage)
    if exact:
        assert_same_tensors(dense[0], other[0])
        assert dense[1].equals(other[1])
    else:
        assert (dense[1]["p_given"] - other[1]["p_given"]).abs().max() < 0.02


def test_another_k_is_refused_on_resume(runs):
    settings = {"sat_start_epoch": 0, "sat_momentum": 0.5, "save_strategy": "epoch"}
    make_trainer(runs, sat_top_k=2, **settings).train()
    with pytest.raises(ValueError, match="sat_top_k=2 and sat_top_k=3"):
        make_trainer(runs, sat_top_k=3, **settings).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("classes", [100, 1000])
def test_memory_beyond_the_targets_is_small(classes):
    """All that is kept of N labels: at most N * C * 4 bytes and 5 %."""
    state = LabelState(DenseTargets(2000, classes, torch.float32, CPU), None, CPU)
    kept = sum(tensor.nbytes for tensor in state.tensors().values())
    assert kept <= 1.05 * 2000 * classes * 4


def test_large_soft_targets_are_announced(monkeypatch, caplog):
    monkeypatch.setattr(recipe, "LARGE_STORAGE", 1000)
    monkeypatch.setattr(recipe.logger, "propagate", True)
    recipe._storage(LabelCorrectionArguments(), CPU, 100, 50)
    assert "sat_top_k=8" in caplog.text
    caplog.clear()
    recipe._storage(LabelCorrectionArguments(sat_top_k=8), CPU, 100, 50)
    assert not caplog.text
