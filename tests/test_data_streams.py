"""Streams: every soft target belongs to the right example."""

import numpy as np
import pytest
import torch
from data_runs import ALL, BASE, EPOCHS, N, predictions, table, train


class Stream(torch.utils.data.IterableDataset):
    """Splits itself over the workers, as streams do."""

    def __init__(self, keys=ALL):
        self.keys = keys

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in ALL[start::step]:
            yield {"input_ids": BASE["input_ids"][i], "labels": BASE["labels"][i], "key": self.keys[i]}


class SizedStream(Stream):
    def __len__(self):
        return N


def hub_stream(keys=ALL):
    return table(key=keys).to_iterable_dataset(num_shards=2)


STREAMS = {"torch": Stream, "sized": SizedStream, "datasets": hub_stream}


@pytest.mark.parametrize(
    "stream, workers, dispatch",
    [("torch", 0, True), ("torch", 2, False), ("sized", 0, False), ("datasets", 0, False), ("datasets", 2, True)],
)
def test_streams(runs, stream, workers, dispatch):
    settings = {} if stream == "sized" else {"max_steps": EPOCHS * 6}
    trainer = train(
        runs,
        STREAMS[stream]([(i * 5) % N for i in ALL]),
        sample_id_column="key",
        sat_num_samples=N,
        dataloader_num_workers=workers,
        accelerator_config={"dispatch_batches": dispatch},
        **settings,
    )
    report = trainer.label_report().to_pandas()
    assert report["sample_id"].tolist() == ALL
    row_of_key = np.argsort([(i * 5) % N for i in ALL])
    expected = predictions(trainer.model, [BASE["input_ids"][i] for i in row_of_key])
    labels = np.array(BASE["labels"])[row_of_key]
    visited = report["n_visits"] > 0
    assert report["n_visits"].tolist() == [EPOCHS] * N
    assert report["given_label"][visited].tolist() == labels[visited].tolist()
    np.testing.assert_allclose(report["p_given"][visited], expected[ALL, labels][visited], atol=1e-5)


@pytest.mark.parametrize("key", ["word", 1.5, N, -1, None, float("nan")])
def test_ids_of_streams_must_be_whole_numbers_below_the_size(runs, key):
    data = Stream([key] * N)
    with pytest.raises(ValueError, match=r"sample_id_column='key'.*sat_num_samples"):
        train(runs, data, sample_id_column="key", sat_num_samples=N, max_steps=2)
