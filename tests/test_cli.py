"""The command `hf-sat`: what it draws is right, and what it cannot do it says in a line, with status 2."""

import getpass
import importlib.metadata
import json
import os
import platform
import re
from functools import partial

import pytest
import torch
from test_tasks import ANIMALS, encoder, own_cache, rows, run  # noqa: F401 (fixtures)

from hf_sat.cli import exit_status, main
from hf_sat.tasks import sharpness_curve
from hf_sat.tasks.sharpness_curve import loss_along_perturbation


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The command takes all cores, which would stay with the tests after it."""
    monkeypatch.setattr(sharpness_curve, "use_all_cores", lambda: None)


def quadratic(curvature):
    """A model whose loss is half the sum of curvature times the squared weights."""
    model = torch.nn.Linear(len(curvature), 1, bias=False)
    torch.nn.init.ones_(model.weight)

    def loss():
        value = 0.5 * (torch.tensor(curvature) * model.weight**2).sum()
        if torch.is_grad_enabled():
            value.backward()
        return value.detach()

    return model, loss


def test_loss_rises_as_the_formula_has_it():
    """Along the gradient (3, 4) / 5 of 0.5 * (3 w1^2 + 4 w2^2) at w = (1, 1)."""
    model, loss = quadratic([3.0, 4.0])
    before = model.weight.detach().clone()
    radii = [0.0, 0.5, 2.0]
    expected = [0.5 * (3 * (1 + r * 0.6) ** 2 + 4 * (1 + r * 0.8) ** 2) for r in radii]
    assert loss_along_perturbation(model, loss, radii) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(model.weight, before) and model.weight.grad is None


@pytest.mark.parametrize("variant", ["sam", "asam"])
def test_sharpness_of_a_trained_model(run, tmp_path, capsys, variant):  # noqa: F811
    _, folder, _ = run("--max_steps 4 --save_strategy no")
    image = f"{tmp_path}/curve.png"
    flags = f"sharpness {folder} --train_file {tmp_path}/train.csv --label_column animal --output_dir {tmp_path}/o"
    assert main(f"{flags} --use_cpu --variant {variant} --points 3 --samples 16 --out {image}".split()) == 0
    losses = [float(loss) for loss in re.findall(r"(?m)^\d\.\d{4}  (\S+)$", capsys.readouterr().out)]
    assert len(losses) == 3 and losses[0] < losses[1] < losses[2]
    assert os.path.getsize(image) > 1000


@pytest.mark.parametrize(
    "argv, words",
    [
        ("sharpnes x", ["sharpnes", "no such command", "sharpness"]),
        ("sharpness", ["needs a model"]),
        ("sharpness x --points 1", ["points=1"]),
        ("sharpness x --radius -1", ["radius=-1.0"]),
        ("sharpness x --radiuss 1", ["radiuss", "did you mean 'radius'"]),
    ],
)
def test_refusals(argv, words, capsys):
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_other_classes_are_refused(run, tmp_path, capsys):  # noqa: F811
    _, folder, _ = run("--max_steps 1 --save_strategy no")
    frame = rows()
    frame["animal"] = frame["animal"].replace(ANIMALS[0], "cow")
    frame.to_csv(tmp_path / "other.csv", index=False)
    flags = f"--train_file {tmp_path}/other.csv --label_column animal --output_dir {tmp_path}/o --use_cpu"
    assert main(f"sharpness {folder} {flags}".split()) == 2
    error = capsys.readouterr().err
    assert "cow" in error and ANIMALS[0] in error


def test_help_needs_no_torch(capsys):
    assert main([]) == 0 and "sharpness" in capsys.readouterr().out


def test_augment_shows_views(capsys):
    assert main(["augment", "one two three four [x]", "--ops", "swap:1", "--views", "3"]) == 0
    printed = capsys.readouterr().out
    assert "one two three four [x]" in printed and "two one" in printed
    assert [f"│ {epoch} " in printed for epoch in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("flags, message", [(["--ops", "swop:1"], "swap"), (["--file", "none.txt"], "none.txt")])
def test_augment_refuses_by_name(capsys, flags, message):
    assert main(["augment", *flags]) == 2
    assert message in capsys.readouterr().err


def test_augment_reads_a_file(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("first line here\n\nsecond line there\n", encoding="utf-8")
    assert main(["augment", "--file", str(tmp_path / "texts.txt"), "--ops", "deletion:0.3", "--views", "1"]) == 0
    assert "second line there" in capsys.readouterr().out


# ---- env ------------------------------------------------------------------------------------------------------------


def test_env_says_versions_and_devices(capsys):
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"] == platform.python_version()
    for name in ("torch", "transformers", "accelerate", "datasets"):
        assert found[name] == importlib.metadata.version(name)
    assert found["torch devices"]["threads"] == torch.get_num_threads() and found["torch devices"]["cuda"] == []
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found)
    assert f"{'torch':<26}{found['torch']}" in lines and f"{'torch devices':<26}threads " in "\n".join(lines)


def test_env_tells_nothing_private(capsys, monkeypatch, tmp_path):
    """It is pasted into public reports: no user, no machine, no folder, nothing of the environment but switches."""
    config = tmp_path / "secret_folder" / "default_config.yaml"
    config.parent.mkdir()
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nmixed_precision: bf16\nnum_processes: 2\n"
        "num_machines: 1\nmachine_rank: 0\nmain_process_ip: 10.0.0.7\nuse_cpu: true\n"
    )
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(config))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for flags in ([], ["--json"]):
        assert main(["env", *flags]) == 0
        printed = capsys.readouterr().out
        assert "MULTI_CPU" in printed and "bf16" in printed
        for private in ("secret", "10.0.0.7", platform.node(), os.path.expanduser("~"), str(tmp_path), "HF_TOKEN"):
            assert private not in printed
        assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", printed)


def test_env_of_a_broken_installation(capsys, monkeypatch):
    def broken():
        raise OSError("/home/someone/lib/libtorch.so: cannot be loaded")

    monkeypatch.setattr("hf_sat.tasks.environment._devices", broken)
    assert main(["env"]) == 0
    printed = capsys.readouterr().out
    assert "cannot be told: OSError" in printed and "someone" not in printed
    assert main(["env", "--jsn"]) == 2 and "--json" in capsys.readouterr().err


def test_a_command_that_ends_leaves_the_process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    opened = partial(torch.distributed.init_process_group, "gloo", rank=0, world_size=1, store=store)
    assert exit_status("program", opened) == 0
    assert not torch.distributed.is_initialized()
