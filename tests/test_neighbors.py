"""Neighbors that vote on labels: the functions, a run against an independent float64 replay, when "auto" has them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from settings import SETTINGS
from small import Steps, assert_same_tensors, bert, bert_tokens, make_trainer, text_data, token_data, weights
from test_step import Recording, softmax

from hf_sat import neighborhood
from hf_sat.methods import schedule
from hf_sat.methods.confident_learning import joint_counts
from hf_sat.methods.neighbors import (
    direction_distances,
    logit_distances,
    neighbor_votes,
    transitions,
    true_label_posterior,
)
from hf_sat.neighborhood import Neighborhood
from hf_sat.state import STATE_FILE

CLASSES = 4


# ---- formulas of the tests' own -------------------------------------------------------------------------------------


def distance(x, y, mean):
    """Between logits, or seen from a mean."""
    if mean is None:
        return np.linalg.norm(x - x.mean() - y + y.mean())
    return 1 - (x - mean) @ (y - mean) / np.linalg.norm(x - mean) / np.linalg.norm(y - mean)


def votes_of(z, row, bank, k, classes, by_features=False):
    """Shares of labels among the k nearest of `bank`, row -> (position, label)."""
    mean = np.mean([there for there, _ in bank.values()], axis=0) if by_features else None
    others = sorted((distance(z, there, mean), r) for r, (there, _) in bank.items() if r != row)
    votes = np.zeros(classes)
    for _, r in others[:k]:
        votes[bank[r][1]] += 1
    return votes / max(votes.sum(), 1)


def noise_of(votes, labels):
    """T and the sizes of classes by confident learning, one label at a time."""
    classes = votes.shape[1]
    bars = [np.mean(votes[labels == c, c]) if (labels == c).any() else 2.0 for c in range(classes)]
    pairs = np.zeros((classes, classes))
    for vote, label in zip(votes, labels):
        able = [c for c in range(classes) if vote[c] >= bars[c]]
        if able:
            pairs[label, max(able, key=lambda c: vote[c])] += 1
    for label in range(classes):
        if pairs[label].sum() == 0:
            pairs[label, label] = 1
        pairs[label] *= (labels == label).sum() / pairs[label].sum()
    sizes = pairs.sum(axis=0)
    shares = np.array([pairs[:, c] / sizes[c] if sizes[c] else np.eye(classes)[c] for c in range(classes)])
    return 0.98 * shares + 0.02 / classes, sizes / sizes.sum()


def posterior_of(vote, label, noise, prior):
    q = prior
    for _ in range(20):
        seen = q @ noise
        q = np.array([q[c] * sum(vote[g] / seen[g] * noise[c, g] for g in range(len(q))) for c in range(len(q))])
    q = q * noise[:, label]
    return q / q.sum()


def share_of(noise, prior):
    if len(prior) == 2:
        return min(0.5, max(0.0, 2 - np.trace(noise)))
    wrong = noise - np.diag(np.diag(noise))
    worst = sum(p * row.max() for p, row in zip(prior, wrong)) / sum(p * row.sum() for p, row in zip(prior, wrong))
    one_sided = (worst - 1 / (len(prior) - 1)) / (1 - 1 / (len(prior) - 1))
    return min(0.5, one_sided * min(1.0, max(0.0, 10 * one_sided - 2)))


def replay(passes, positions, labels, settings):
    """Soft targets at the end, in float64; one micro-batch a step."""
    a, k, start = (settings[name] for name in ("sat_momentum", "sat_neighbors", "sat_start_epoch"))
    classes = passes[0][4].shape[1]
    targets, bank, told, noise = np.eye(classes)[labels], {}, {}, None
    for (_, epoch, rows, _, logits, _), places in zip(passes, positions, strict=True):
        if noise is None and epoch >= start:
            recent = [r for r, (vote, when) in told.items() if when >= epoch - 0.5 and vote.sum() > 0]
            noise = noise_of(np.array([told[r][0] for r in recent]), labels[recent])
        by = classes == 2
        asked = [(x, r, bank, k, classes, by) for r, x in zip(rows, places)]
        votes = [votes_of(*one) if epoch >= 1 else np.zeros(classes) for one in asked]
        for r, z, vote in zip(rows, logits, votes):
            if noise is not None:
                share = settings.get("share", share_of(*noise))
                estimate = (1 - share) * softmax(z) + share * posterior_of(vote, labels[r], *noise)
                targets[r] = a * targets[r] + (1 - a) * estimate
            told[r] = vote, epoch
        bank |= {r: (x, labels[r]) for r, x in zip(rows, places)}
    return targets


# ---- the functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_features", [False, True])
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 12), classes=st.integers(2, 5))
def test_votes_are_those_of_a_search_by_hand(by_features, seed, k, classes):
    rng = np.random.default_rng(seed)
    width = 7 if by_features else classes
    bank = {r: (rng.normal(size=width), int(rng.integers(classes))) for r in range(9)}
    asked, rows = rng.normal(size=(4, width)), np.array([0, 3, 8, 20])
    remembered = torch.tensor(np.array([z for z, _ in bank.values()] + [np.zeros(width)]))
    places = torch.tensor([*bank, -1])
    labels = torch.tensor([label for _, label in bank.values()] + [-1])
    if by_features:
        remembered[-1] = 100.0  # was forgotten, and lies there still
        distances = direction_distances(torch.tensor(asked), remembered, places >= 0)
    else:
        distances = logit_distances(torch.tensor(asked), remembered)
    found = neighbor_votes(distances, torch.tensor(rows), places, labels, k, classes)
    wanted = [votes_of(z, r, bank, k, classes, by_features) for z, r in zip(asked, rows)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_votes_need_somebody():
    rows, places, labels = torch.tensor([5]), torch.tensor([5, -1]), torch.tensor([1, -1])
    asked, remembered = torch.ones(1, 3), torch.ones(2, 3)
    nobody = logit_distances(asked, remembered), direction_distances(asked, remembered, torch.zeros(2).bool())
    lost = torch.full((1, 2), torch.nan)
    for distances in (*nobody, lost):
        assert neighbor_votes(distances, rows, places, labels, 4, 3).tolist() == [[0.0, 0.0, 0.0]]


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_noise_is_that_of_confident_learning_by_hand(seed, classes):
    rng = np.random.default_rng(seed)
    votes, labels = rng.dirichlet(np.ones(classes), 60), rng.integers(classes, size=60)
    noise, prior = transitions(torch.tensor(votes), torch.tensor(labels))
    wanted = noise_of(votes, labels)
    np.testing.assert_allclose(noise, wanted[0], atol=1e-6)
    np.testing.assert_allclose(prior, wanted[1], atol=1e-6)
    rows = true_label_posterior(torch.tensor(votes).float(), torch.tensor(labels), noise, prior)
    hand = [posterior_of(vote, label, *wanted) for vote, label in zip(votes, labels)]
    np.testing.assert_allclose(rows, hand, atol=2e-5)


def test_joint_is_cleanlabs():
    count = pytest.importorskip("cleanlab.count")
    rng = np.random.default_rng(0)
    votes, labels = rng.dirichlet(np.ones(3), 200), rng.integers(3, size=200)
    joint = count.compute_confident_joint(labels, votes)
    np.testing.assert_allclose(joint_counts(torch.tensor(votes), torch.tensor(labels)), joint, atol=1.0)


def test_one_sided_noise_is_seen_through():
    """Of 100 neighbors of class 0, 45 kept their label and 55 are called 1, as class 0 often is and class 2 never."""
    noise = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]]) * 0.98 + 0.02 / 3
    told = true_label_posterior(torch.tensor([[0.45, 0.55, 0.0]]), torch.tensor([1]), noise, torch.full((3,), 1 / 3))
    assert told.argmax() == 0 and told[0, 0] > 0.6


# ---- what is remembered ---------------------------------------------------------------------------------------------


def test_places_are_shared_without_regard_to_order(monkeypatch):
    monkeypatch.setattr(neighborhood, "MOST_REMEMBERED", 4)
    rows, logits = torch.tensor([1, 5, 2, 9, 3]), torch.randn(5, 3)
    fresh = torch.tensor([True, True, True, True, False])
    kept = []
    for order in (torch.arange(5), torch.tensor([3, 4, 1, 2, 0])):
        place = Neighborhood(10, 3, 2, torch.device("cpu"))
        place.remember(fresh[order], rows[order], rows[order] % 3, logits[order], logits[order], 1.0)
        kept.append({name: value[:-1] for name, value in place.tensors().items() if value.dim() and len(value) == 5})
        assert place.rows[:-1].tolist() == [-1, 9, 2, -1]
    assert_same_tensors(*kept)


def test_neighbors_share_what_is_one_sided():
    place = Neighborhood(6, 4, 2, torch.device("cpu"))
    place.prior = torch.full((4,), 0.25)
    spread, one_kind = (1 - torch.eye(4)) / 3, torch.eye(4).roll(1, 1)
    shares = []
    for weight in (0.0, 0.19, 0.25, 0.31, 0.45, 0.55, 1.0):
        place.transition = 0.6 * torch.eye(4) + 0.4 * ((1 - weight) * spread + weight * one_kind)
        shares.append(place._share().item())
    assert shares == pytest.approx([0.0, 0.0, 0.125, 0.31, 0.45, 0.5, 0.5], abs=1e-6)


def test_edited_labels_are_forgotten():
    place = Neighborhood(6, 3, 2, torch.device("cpu"))
    rows = torch.arange(6)
    place.remember(rows >= 0, rows, rows % 3, torch.randn(6, 3), torch.ones(6, 3), 1.0)
    place.forget(torch.tensor([2, 4]))
    assert place.rows[:-1].tolist() == [0, 1, -1, 3, -1, 5] and place.labels[2] == -1


# ---- in the Trainer -------------------------------------------------------------------------------------------------


def one_sided_data(rows=90, classes=CLASSES):
    """Every other label that is not the last class is the next class instead."""
    data = text_data(rows, classes)
    wrong = [label + 1 if i % 2 and label < classes - 1 else label for i, label in enumerate(data["labels"])]
    return data.remove_columns("labels").add_column("labels", wrong)


class RecordingFeatures(Recording):
    """Keeps what the classifier of BERT is given too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.features, self.last = [], None
        self.model.classifier.register_forward_pre_hook(self.see)

    def see(self, module, args):
        self.last = args[0].detach().double().numpy()

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.features += [self.last] * (len(self.passes) - len(self.features))
        return loss


# Sixteenths are exact in float32 and float64, so that what just reaches a threshold does so in both.
ONE_SIDED = {**SETTINGS["neighbors"], "sat_neighbors": 16, "num_train_epochs": 4, "learning_rate": 1e-2}
CASES = {"by logits": (CLASSES, ONE_SIDED), "by features": (2, {**ONE_SIDED, "sat_start_epoch": 1.5})}


@pytest.mark.parametrize("case", CASES)
def test_run_follows_the_replay(runs, case):
    classes, settings = CASES[case]
    data = one_sided_data(classes=classes)
    kind = {"trainer": RecordingFeatures, "save_strategy": "epoch"}
    trainer = make_trainer(runs, bert(classes=classes), data, **kind, **settings)
    trainer.train()
    saved = load_file(f"{runs}/checkpoint-{trainer.state.global_step}/{STATE_FILE}")["soft_targets"]
    positions = trainer.features if classes == 2 else [logits for *_, logits, _ in trainer.passes]
    labels = np.array(data["labels"])
    wanted = replay(trainer.passes, positions, labels, settings)
    assert trainer._correction.neighborhood.share > 0.2
    np.testing.assert_allclose(saved, wanted, atol=1e-4)
    alone = replay(trainer.passes, positions, labels, {**settings, "share": 0.0})
    assert np.abs(wanted - alone).max() > 0.05  # so that the neighbors' part is seen


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop_at", [11, 19, 41])
def test_resumes_to_the_bit_where_neighbors_tell(tmp_path, stop_at, case):
    """Before and after the onset, which is at step 18 or 24 of 48, and in the middle of an epoch."""
    classes, settings = CASES[case]
    settings = {**settings, "save_strategy": "steps", "save_steps": stop_at, "data": one_sided_data(classes=classes)}
    ends = []
    for folder in ("whole", "parts"):
        resumed, model = folder == "parts", {"model": bert(classes=classes)}
        if resumed:
            make_trainer(str(tmp_path / folder), **model, callbacks=[Steps(stop_at)], **settings).train()
        trainer = make_trainer(str(tmp_path / folder), **model, **settings)
        trainer.train(resume_from_checkpoint=resumed or None)
        assert trainer._correction.neighborhood.share > 0.2
        ends.append({**weights(trainer), **trainer._correction._tensors()})
    assert_same_tensors(*ends)


@pytest.mark.parametrize(
    ("rows", "settings", "k"),
    [
        (200, {}, 40),
        (200, {"sat_neighbors": 7}, 7),
        (200, {"sat_neighbors": 0}, 0),
        (200, {"sat_momentum": 0.5}, 0),
        (200, {"sat_start_epoch": 2}, 0),
        (200, {"num_train_epochs": 2}, 0),
        (200, {"label_correction": "elr"}, 0),
        (80, {}, 0),
    ],
)
def test_auto_has_neighbors_where_they_can_help(runs, monkeypatch, rows, settings, k):
    monkeypatch.setattr(neighborhood, "LEAST_OF_CLASS", 25)
    trainer = make_trainer(runs, data=text_data(rows), **{"learning_rate": 1e-2, **settings})
    trainer.train()
    place = trainer._correction.neighborhood
    assert (0 if place is None else place.k) == k
    if k:
        assert place.knows_noise
        assert 0 <= trainer.state.log_history[-2]["sat/neighbor_noise_rate"] <= 1


@pytest.mark.parametrize("neighbors, asked", [("auto", False), (7, True)])
def test_an_unsure_model_asks_none_that_were_not_set(runs, monkeypatch, neighbors, asked):
    monkeypatch.setattr(neighborhood, "LEAST_OF_CLASS", 25)
    monkeypatch.setattr(schedule, "UNSURE", 2.0)
    monkeypatch.setattr(schedule, "SURE", 3.0)
    trainer = make_trainer(runs, data=text_data(200), sat_neighbors=neighbors)
    trainer.train()
    assert trainer._correction.neighborhood.knows_noise is asked


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_handful_of_rows_trains_on(runs, rows):
    """One step an epoch, and for one row nobody else to ask."""
    trainer = make_trainer(runs, data=text_data(rows), **SETTINGS["neighbors"])
    trainer.train()
    targets = trainer._correction.state.targets.read(torch.arange(rows))
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(rows))


def test_tokens_have_neighbors_where_a_number_is_set(runs):
    settings = {"sat_start_epoch": 2, "sat_momentum": 0.3, "sat_neighbors": 10}
    trainer = make_trainer(runs, bert_tokens(), token_data(24), **settings)
    trainer.train()
    assert trainer._correction.neighborhood.knows_noise
    trainer = make_trainer(runs, bert_tokens(), token_data(60))
    trainer.train()
    assert trainer._correction.neighborhood is None


@pytest.mark.parametrize(
    "settings",
    [
        {"sat_neighbors": 5, "sat_start_epoch": 1.4},
        {"sat_neighbors": 5, "num_train_epochs": 2},
        {"sat_neighbors": "5", "sat_start_epoch": 0, "sat_momentum": 0.9},
    ],
)
def test_votes_without_their_pass_are_refused(runs, settings):
    trainer = make_trainer(runs, **settings)
    with pytest.raises(ValueError, match=r"sat_neighbors=5: neighbors vote from the second pass on.*sat_neighbors=0"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("value", [-1, 2.5, "many", True, None])
def test_what_is_no_number_is_refused(runs, value):
    with pytest.raises(ValueError, match="sat_neighbors="):
        make_trainer(runs, sat_neighbors=value)


def test_resume_with_other_neighbors_is_refused(runs):
    settings = {**SETTINGS["neighbors"], "save_strategy": "epoch"}
    make_trainer(runs, **settings).train()
    other = make_trainer(runs, **{**settings, "sat_neighbors": 0, "num_train_epochs": 4})
    with pytest.raises(ValueError, match="resume with sat_neighbors=5"):
        other.train(resume_from_checkpoint=True)
