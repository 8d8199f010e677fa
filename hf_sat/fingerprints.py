"""Fingerprints of models and data, by content: the same in every process, and another when anything changed."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from .rng import preserved_rng
from .samples import LABEL_NAMES

# Items that are fetched and collated one by one, to see what a transform and a collator make of them.
PROBES = 32
# What a config says of where a model was, not what it is.
PASSING = ("_name_or_path", "transformers_version", "_commit_hash", "torch_dtype", "dtype", "architectures")


def of_models(models: Iterable[nn.Module], *settings: Any) -> str:
    """Of the weights, buffers and configs of models, and of settings that bear on what they give."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for model in models:
        config = model.config.to_dict() if hasattr(getattr(model, "config", None), "to_dict") else {}
        lasting = {key: value for key, value in config.items() if key not in PASSING}
        digest.update(json.dumps([type(model).__name__, lasting], sort_keys=True, default=str).encode())
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def of_data(dataset: Any, with_labels: bool) -> str:
    """Of all values that a `datasets.Dataset` stores, or of all items of other data where no image or sound has to be
    decoded for it; of the rest the length, as [`of_preprocessing`] looks at some items.

    Args:
        with_labels: whether labels are read by the model, too.
    """
    digest = hashlib.blake2b(str(len(dataset)).encode(), digest_size=16)
    if isinstance(dataset, datasets.Dataset):
        names = [name for name in sorted(dataset.column_names) if with_labels or name not in LABEL_NAMES]
        digest.update(repr(names).encode())
        for batch in dataset.select_columns(names).with_format("arrow").iter(1000) if names else ():
            for name in names:
                _add_column(digest, batch.column(name).combine_chunks())
    elif len(dataset) and isinstance(dataset[0], Mapping) and not _is_costly(dataset[0]):
        for position in range(len(dataset)):
            digest.update(_batch_bytes(dataset[position], with_labels))
    return digest.hexdigest()


def of_preprocessing(dataset: Any, collate: Callable[[list], Mapping], with_labels: bool) -> str:
    """Of what transforms and the collator make of some examples.

    Raises:
        ValueError: where an example is not the same twice.
    """
    digest = hashlib.blake2b(digest_size=16)
    for position in np.unique(np.linspace(0, len(dataset) - 1, num=min(PROBES, len(dataset)))).astype(int).tolist():
        seen = []
        for _ in range(2):
            with preserved_rng():
                # Another random state at each look, or random transforms would look fixed.
                for seed in (random.seed, np.random.seed, _seed_torch):
                    seed(position + 7919 * len(seen))
                seen.append(_batch_bytes(collate([dataset[position]]), with_labels))
        if seen[0] != seen[1]:
            raise ValueError(
                f"kd_cache_dir is set and example {position} of train_dataset is not the same twice: logits that are "
                "computed once would belong to another view of it. Leave kd_cache_dir out (the teacher then sees each "
                "view), or key the augmentation by epoch and example (set_epoch) and set kd_cache_per_epoch=True."
            )
        digest.update(seen[0])
    return digest.hexdigest()


def _seed_torch(seed: int) -> None:
    """`torch.manual_seed` keeps a traceback for each accelerator that is not in use yet, which takes milliseconds."""
    (torch.manual_seed if torch.cuda.is_initialized() else torch.default_generator.manual_seed)(seed)


def _is_costly(item: Mapping) -> bool:
    return any(hasattr(value, "getbands") or getattr(value, "ndim", 0) >= 2 for value in item.values())


def _batch_bytes(batch: Mapping, with_labels: bool) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(batch):
        if not with_labels and name in LABEL_NAMES:
            continue
        value = batch[name]
        digest.update(name.encode())
        if isinstance(value, Mapping):
            digest.update(_batch_bytes(value, with_labels))
        else:
            digest.update(_bytes(value) if isinstance(value, Tensor) else _text(value))
    return digest.digest()


def _text(value: Any) -> bytes:
    """Not `repr` of an array, which leaves most of a long one out."""
    return repr(value.tolist() if isinstance(value, np.ndarray) else value).encode()


def _bytes(tensor: Tensor) -> bytes:
    tensor = tensor.detach().cpu().contiguous()
    with contextlib.suppress(RuntimeError):
        return tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return repr(tensor).encode()  # of a kind that has no bytes to show


def _add_column(digest: Any, column: pa.Array) -> None:
    """Values, lengths and gaps of an arrow array, whatever lies between them in memory."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    digest.update(f"{column.type} {len(column)} {column.null_count}".encode())
    if column.null_count:
        digest.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        digest.update(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).tobytes())
        _add_column(digest, column.flatten())
    elif pa.types.is_fixed_size_list(column.type):
        _add_column(digest, column.flatten())
    elif pa.types.is_struct(column.type):
        for part in column.flatten():
            _add_column(digest, part)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        zero = False if pa.types.is_boolean(column.type) else 0
        digest.update(column.fill_null(zero).to_numpy(zero_copy_only=False).tobytes())
    else:
        for value in column.to_pylist():
            part = value if isinstance(value, bytes) else str(value).encode()
            digest.update(len(part).to_bytes(8, "little") + part)
