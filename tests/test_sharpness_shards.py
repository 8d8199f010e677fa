"""The perturbation of sharded parameters, on one process and on two."""

import contextlib
import copy
import os

import pytest
import torch
import torch.distributed as dist
from perturbed import VARIANTS, same_bits, weights
from torch import nn

from hf_sat.methods import SharpnessAware, perturb, perturbation_norm, sam_gradient


@contextlib.contextmanager
def process_group(rank, world, store):
    dist.init_process_group("gloo", rank=rank, world_size=world, store=dist.FileStore(store, world))
    try:
        yield
    finally:
        dist.destroy_process_group()


def sharded_step(rank, world, store):
    """FSDP2 gives what the whole model does, to rounding: with uneven shards of 5 rows, and a parameter left whole."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    torch.set_num_threads(1)
    with process_group(rank, world, store):
        mesh = dist.init_device_mesh("cpu", (world,))
        torch.manual_seed(0)
        whole = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, 7, bias=False))
        inputs = torch.randn(8, 6)
        for variant in VARIANTS:
            whole.zero_grad()
            sharded = copy.deepcopy(whole)
            fully_shard(sharded[0], mesh=mesh)
            fully_shard(sharded, mesh=mesh, ignored_params={sharded[3].weight})
            closures = [lambda model=model: backward(model(inputs)) for model in (whole, sharded)]
            for closure in closures:
                closure()
            norms = [perturbation_norm(model.named_parameters(), variant) for model in (whole, sharded)]
            assert not isinstance(norms[1], DTensor)
            torch.testing.assert_close(norms[1], norms[0], rtol=1e-6, atol=0)
            before = weights(full(sharded))
            perturbation = perturb(sharded.named_parameters(), variant, rho=0.3)
            local = sum(copied.numel() for _, group in perturbation.copies for copied in group)
            assert local < sum(each.numel() for each in before) or world == 1
            reference = perturb(whole.named_parameters(), variant, rho=0.3)
            for ours, theirs in zip(weights(full(sharded)), whole.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)
            perturbation.restore(), reference.restore()
            assert same_bits(weights(full(sharded)), before)
            method = SharpnessAware(variant, rho=0.3)
            for model, closure in zip((whole, sharded), closures):
                sam_gradient(model.named_parameters(), closure, method)
            for ours, theirs in zip(full(sharded), whole.parameters(), strict=True):
                torch.testing.assert_close(ours[1].grad_of_it, theirs.grad, rtol=1e-5, atol=1e-6)


def backward(outputs):
    loss = outputs.square().mean()
    loss.backward()
    return loss


def full(model):
    """Named parameters with their gradients, whole on every process."""
    named = []
    for name, parameter in model.named_parameters():
        whole = getattr(parameter.detach(), "full_tensor", parameter.detach)()
        whole.grad_of_it = getattr(parameter.grad, "full_tensor", lambda grad=parameter.grad: grad)()
        named.append((name, whole))
    return named


def test_sharded_on_one_process(tmp_path):
    sharded_step(0, 1, os.fspath(tmp_path / "store"))


@pytest.mark.slow
def test_sharded_on_two_processes(tmp_path):
    torch.multiprocessing.spawn(sharded_step, args=(2, os.fspath(tmp_path / "store")), nprocs=2)
