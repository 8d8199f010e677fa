"""When the training of an audit ends early."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState

from hf_sat.tasks.audit_stopping import StopWhenSettled, support


def scored(*shares):
    """A stand-in for a trainer, whose report gives these shares of the given labels one after the other."""
    reports = ({"p_given": np.asarray(share, dtype=float), "area_under_margin": np.zeros(50)} for share in shares)
    return SimpleNamespace(label_report=lambda: SimpleNamespace(columns=next(reports)))


ORDER, ANOTHER = np.linspace(0, 1, 50), np.linspace(0, 1, 50)[::-1]


@pytest.mark.parametrize(
    "shares, onset, stops",
    [
        ([ORDER, ORDER**2, ORDER], 1.5, 3),  # the order counts, not the numbers; a pass of correction comes first
        ([ORDER, ORDER, ORDER], None, None),
        ([ORDER, ORDER, ORDER], 2.5, None),
        ([ORDER, ANOTHER, ORDER], 0.0, None),
        ([ORDER * np.nan, ORDER * np.nan, ORDER * 0], 0.0, None),
        ([ORDER * 0 + 1, ORDER * 0 + 1, ORDER * 0 + 1], 0.0, None),  # no order at all
    ],
)
def test_training_stops_where_the_order_of_the_labels_has_settled(shares, onset, stops):
    stopping, control = StopWhenSettled(scored(*shares)), TrainerControl()
    stopped_after = None
    for epoch in (1.0, 2.0, 3.0):
        stopping.on_log(None, None, control, logs={} if onset is None else {"sat/onset_epoch": onset})
        stopping.on_epoch_end(None, TrainerState(epoch=epoch), control)
        if control.should_training_stop:
            stopped_after = stopped_after or epoch
    assert stopped_after == stops


def test_margins_speak_for_a_label_as_much_as_its_soft_target():
    columns = {"area_under_margin": np.array([-1e9, 0.0, 1e9, np.nan]), "p_given": np.array([1.0, 0.25, 0.5, np.nan])}
    np.testing.assert_allclose(support(columns), [1.0, 0.75, 1.5, np.nan])
