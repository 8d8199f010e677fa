"""Which labels were wrong, from what the run remembers of them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch

from .confident_joint import ConfidentJoint
from .methods.label_quality import label_quality
from .noise_estimate import NoiseEstimate, NoiseRate, counted_pairs, estimate_noise, least_trusted
from .samples import Samples
from .soft_targets import pieces
from .state import LabelState

if TYPE_CHECKING:
    import pandas as pd

REPORT_FILE = "labels.parquet"
# What the state remembers of the visits, and its column.
DYNAMICS = {
    "p_given_mean": "mean_p_given",
    "margin_mean": "area_under_margin",
    "forgettings": "forgetting_events",
    "first_agreement": "first_agreement_epoch",
}


@dataclass
class LabelReport:
    """A row for every label of the training set, in the data set's order.

    Columns (`to_pandas`): `sample_id`; `token_index` (token classification alone); `given_label`; `corrected_label`
    (the class the soft target has most of); `label_quality` (0 to 1, low is suspect: see
    [`hf_sat.methods.label_quality.label_quality`]; NaN without a visit);
    `is_label_issue` (of the labels given as each class as many of the lowest quality as `noise` holds to be wrong);
    `p_given` and `p_corrected` (the soft target's mass on the two);
    `n_visits`. Where labels are ignored (-100) there is no row for tokens, and one without quality for examples.

    Further scores over the visits, NaN or -1 without one: `mean_p_given` (predicted probability of the given label),
    `area_under_margin` (its logit less the largest other; Pleiss et al. 2020, https://arxiv.org/abs/2001.10528),
    `forgetting_events` (Toneva et al. 2019, https://arxiv.org/abs/1812.05159), `first_agreement_epoch` (of the first
    visit that predicted the given label, -1 for never).

    Args:
        columns: name -> values, (R,).
        class_names: name of every class.
        positions: place in the data set of the example of each row, (R,).
        soft_targets: reads the soft targets, (R, C).
        log_history: of the run.
        noise: estimated rates and transition matrix of the noise; None after a run so short that it tells nothing of
            it, which is one of fewer than three passes without correction.

    Example:
        >>> report = trainer.label_report()                                                 # doctest: +SKIP
        >>> report.to_pandas().sort_values("label_quality").head(10)                        # doctest: +SKIP
        >>> report.to_html("report.html", examples=train["text"])                           # doctest: +SKIP
    """

    columns: dict[str, np.ndarray]
    class_names: list[str] = field(default_factory=list)
    positions: np.ndarray | None = None
    soft_targets: Callable[[], np.ndarray] | None = None
    log_history: list[dict[str, Any]] = field(default_factory=list)
    noise: NoiseEstimate | None = None

    def __len__(self) -> int:
        return len(self.columns["given_label"])

    @property
    def num_corrected(self) -> int:
        """How many labels were corrected."""
        return int((self.columns["corrected_label"] != self.columns["given_label"]).sum())

    @property
    def num_issues(self) -> int:
        """How many labels are held to be wrong."""
        return int(self.columns["is_label_issue"].sum())

    def to_pandas(self) -> "pd.DataFrame":
        """The table as a `pandas.DataFrame`."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    def to_dataset(self) -> datasets.Dataset:
        """The table as a `datasets.Dataset`."""
        return datasets.Dataset.from_dict(self.columns)

    @property
    def noise_rate(self) -> NoiseRate | None:
        """Estimated share of wrong labels, with its interval; None where it is not known."""
        return self.noise and self.noise.rate

    def to_cleanlab(self) -> dict[str, Any]:
        """What cleanlab takes: `labels`, (R,), and `pred_probs`, (R, C), of the rows that were visited, in order.

        The probabilities are soft targets of one training run, not out-of-sample predictions; cleanlab's thresholds are
        made for the latter and find less here.

        Raises:
            ValueError: for a report that has no soft targets.
        """
        if self.soft_targets is None:
            raise ValueError("this report has no soft targets: take trainer.label_report().")
        judged = (self.columns["n_visits"] > 0) & (self.columns["given_label"] >= 0)
        return {"labels": self.columns["given_label"][judged], "pred_probs": self.soft_targets()[judged]}

    def to_html(
        self,
        path: str,
        title: str = "Training labels",
        examples: Sequence | None = None,
        about: dict[str, str] | None = None,
        **limits: int,
    ) -> str:
        """Write the report as one page that needs nothing else, and no network; returns its path.

        Args:
            path: of the file.
            title: heading.
            examples: what the labels are of, one for each row of the data set: texts, lists of words, or pictures.
            about: facts for the foot of the page.
            limits: `max_rows`, `max_thumbnails` and `max_chars` of `hf_sat.audit_page.render_page`.
        """
        from .audit_page import PageData, curves_of_log, save_page

        rate = self.noise_rate
        page = PageData(
            title,
            self.to_pandas(),
            self.class_names,
            noise_rate=rate and (rate.rate, rate.low, rate.high),
            transition=self.noise and self.noise.transition,
            curves=curves_of_log(self.log_history),
            examples=examples,
            example_of=None if examples is None else self.positions,
            about=about or {},
        )
        return str(save_page(page, path, **limits))

    def save_plots(self, folder: str) -> list[str]:
        """Write `transition.png`, and `curves.png` where the run logged any, into `folder`; returns their paths."""
        from .audit_page import PageData, curves_of_log
        from .audit_page.plots import plot_curves, plot_transition

        os.makedirs(folder, exist_ok=True)
        page = PageData("", self.to_pandas(), self.class_names, curves=curves_of_log(self.log_history))
        paths = [os.path.join(folder, "transition.png")]
        plot_transition(page, paths[0])
        if page.curves is not None:
            paths.append(os.path.join(folder, "curves.png"))
            plot_curves(page, paths[1])
        return paths

    def save(self, folder: str) -> str:
        """Write `labels.parquet` into `folder`, made where it is missing; returns the file's path."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, REPORT_FILE)
        self.to_pandas().to_parquet(path, index=False)
        return path


def label_report(
    state: LabelState,
    samples: Samples,
    joint: ConfidentJoint,
    given: np.ndarray,
    class_names: Sequence[str] | None = None,
    log_history: list[dict[str, Any]] | None = None,
    onset: float | None = None,
) -> LabelReport:
    """Build the report.

    Args:
        state: the rows after training.
        samples: the examples they belong to.
        joint: what the predictions of the run said of the noise.
        given: given label of each row, (R,); also of rows that no batch has shown.
        class_names: of the model; default: their numbers.
        log_history: of the run, for its curves.
        onset: epoch at which correction began; None where it did not.
    """
    order, token_index, positions = _dataset_order(samples)
    visits = state.n_visits[:-1].cpu().numpy()[order]
    largest, p_largest, p_given = (part[order] for part in _masses(state, given))
    given = given[order]
    usable = (visits > 0) & (given >= 0)
    corrected = np.where(usable, largest, given)
    p_given = np.where(given >= 0, np.where(usable, p_given, 1.0), np.nan)
    p_corrected = np.where(given >= 0, np.where(usable, p_largest, 1.0), np.nan)
    margin = state.margin_mean[:-1].cpu().numpy()[order]
    quality = np.full(len(given), np.nan)
    quality[usable] = label_quality(given[usable], margin[usable], p_given[usable])
    ids = np.arange(samples.num_examples) if samples.ids is None else samples.ids
    columns = {"sample_id": ids[positions]}
    if token_index is not None:
        columns["token_index"] = token_index
    columns |= {
        "given_label": given.astype(np.int64),
        "corrected_label": corrected.astype(np.int64),
        "label_quality": quality,
        "is_label_issue": np.zeros(len(given), dtype=bool),
        "p_given": p_given,
        "p_corrected": p_corrected,
        "n_visits": visits.astype(np.int64),
        **_dynamics(state, order, usable),
    }
    noise = _noise(joint, given[usable], corrected[usable], state.num_classes, onset)
    if noise is not None:
        columns["is_label_issue"][usable] = least_trusted(given[usable], quality[usable], noise.by_class)
    names = class_names if class_names and len(class_names) == state.num_classes else range(state.num_classes)
    return LabelReport(
        columns,
        class_names=list(map(str, names)),
        positions=positions,
        soft_targets=lambda: _soft_targets(state)[order],
        log_history=log_history or [],
        noise=noise,
    )


def _noise(
    joint: ConfidentJoint, given: np.ndarray, proposed: np.ndarray, num_classes: int, onset: float | None
) -> NoiseEstimate | None:
    """By the confident joint, or by the labels proposed where there is none; None from a run too short for either."""
    estimate = joint.estimate(np.bincount(given, minlength=num_classes), onset)
    if estimate is None and onset is None:
        return None
    return estimate_noise(counted_pairs(given, proposed, num_classes) if estimate is None else estimate)


def _dynamics(state: LabelState, order: np.ndarray, usable: np.ndarray) -> dict[str, np.ndarray]:
    """What the visits of each row had in common."""
    stored = {name: value[:-1].cpu().numpy()[order] for name, value in vars(state).items() if name in DYNAMICS}
    return {
        column: np.where(usable, stored[name], np.nan if stored[name].dtype.kind == "f" else -1)
        for name, column in DYNAMICS.items()
    }


def _soft_targets(state: LabelState) -> np.ndarray:
    """All of them, (R, C), each with sum 1."""
    targets = torch.cat(
        [state.targets.read(rows).float().cpu() for rows in pieces(state.targets, state.given_labels.device)]
    )
    return (targets / targets.sum(dim=1, keepdim=True).clamp_min(torch.finfo(targets.dtype).tiny)).numpy()


def _masses(state: LabelState, given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class each soft target has most of, its mass, and the mass on the given label, (R,) each."""
    device = state.given_labels.device
    labels = torch.from_numpy(given).to(device).clamp_min(0)
    parts = []
    for rows in pieces(state.targets, device):
        targets = state.targets.read(rows)
        if state.empty:  # they began at zero and do not sum to 1 yet
            targets = targets / targets.sum(dim=1, keepdim=True).clamp_min(torch.finfo(targets.dtype).tiny)
        largest = state.targets.largest(rows)
        masses = [targets.gather(1, classes[:, None])[:, 0] for classes in (largest, labels[rows])]
        parts.append([part.cpu().numpy() for part in (largest, *masses)])
    return tuple(np.concatenate(column) for column in zip(*parts))


def _dataset_order(samples: Samples) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """State rows in the data set's order, with the token index and the position of each."""
    examples = np.arange(samples.num_examples) if samples.example_of is None else samples.example_of
    if samples.offsets is None:
        return examples, None, np.arange(len(examples))
    counts = np.diff(samples.offsets)[examples]
    positions = np.repeat(np.arange(len(examples)), counts)
    token_index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return samples.offsets[examples][positions] + token_index, token_index, positions
