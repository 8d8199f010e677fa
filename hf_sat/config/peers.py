"""The flags of the methods that label correction can be besides SAT."""

import math
import numbers
from dataclasses import dataclass, field

from .checks import is_a, refuse


@dataclass
class PeerMethodArguments:
    """Constants of the peers of SAT, each read by its own method alone; defaults are those of the papers.

    Args:
        elr_beta (number in [0, 1)): momentum of the running prediction of ELR.
        elr_lambda (number >= 0): weight of ELR's regularizer.
        gce_q (number in (0, 1]): order of the generalized cross-entropy; towards 0 it is the cross-entropy, at 1 the
            mean absolute error.
        sce_alpha (number >= 0), sce_beta (number >= 0): weights of the cross-entropy and of its reverse.
        bootstrap_beta (number in [0, 1]): share of the given label in the target of soft bootstrapping.
    """

    HELP_GROUP = "constants of the peers of SAT"  # of `--help`
    HELP_ALL_ONLY = True

    elr_beta: float = field(default=0.7, metadata={"help": "Momentum of ELR's running predictions, in [0, 1)."})
    elr_lambda: float = field(default=3.0, metadata={"help": "Weight of ELR's regularizer."})
    gce_q: float = field(default=0.7, metadata={"help": "Order of the generalized cross-entropy, in (0, 1]."})
    sce_alpha: float = field(default=0.1, metadata={"help": "Weight of the cross-entropy in label_correction=sce."})
    sce_beta: float = field(default=1.0, metadata={"help": "Weight of its reverse in label_correction=sce."})
    bootstrap_beta: float = field(default=0.95, metadata={"help": "Share of the given label in the target, in [0, 1]."})

    def check_peer_methods(self) -> None:
        """Raise `ValueError` for a number outside its range."""
        for setting, inside, interval in (
            ("elr_beta", lambda x: 0 <= x < 1, "in [0, 1)"),
            ("elr_lambda", lambda x: 0 <= x < math.inf, "finite and >= 0"),
            ("gce_q", lambda x: 0 < x <= 1, "in (0, 1]"),
            ("sce_alpha", lambda x: 0 <= x < math.inf, "finite and >= 0"),
            ("sce_beta", lambda x: 0 <= x < math.inf, "finite and >= 0"),
            ("bootstrap_beta", lambda x: 0 <= x <= 1, "in [0, 1]"),
        ):
            value = getattr(self, setting)
            if not (is_a(value, numbers.Real) and inside(value)):
                raise refuse(setting, value, f"give a number {interval}.")
