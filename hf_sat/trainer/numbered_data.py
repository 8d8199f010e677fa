"""Example numbers beside the examples, from the training set into the batch, in `transformers.Trainer`."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length

from ..config import LabelCorrectionArguments
from ..recipe import refuse_labels
from ..sample_ids import (
    EXAMPLE_KEY,
    LABEL_POSITIONS,
    LabelCheck,
    NumberedCollator,
    NumberedDataset,
    NumberedStream,
    SeededByEpoch,
    Unnumbered,
    set_epoch_of_samplers,
)
from ..samples import Samples, given_labels, read_samples


class NumberedDataMixin:
    """The training loader of a run whose methods know their examples; untouched where none does."""

    _numbered = False  # whether the batches of the run under way carry example numbers
    _settings: LabelCorrectionArguments
    _samples: Samples
    _label_check: LabelCheck
    _offsets: Tensor | None
    _examples: Tensor | None = None
    _positions: Tensor | None = None  # of their labels, in data that show views of an example

    @contextlib.contextmanager
    def _numbered_data(self) -> Iterator[None]:
        """While the loader is made, data set and collator are ours around the user's.

        Swapped rather than passed on, so that a loader that a user's subclass makes of the two carries the numbers too.
        """
        dataset, collator = found = self.train_dataset, self.data_collator
        loaded, collate = self._without_unused_columns(dataset, collator)
        settings, label_key = self._settings, self._label_key()
        plain = loaded
        if hasattr(dataset, "with_label_positions"):
            # It shows views of its examples; what is known of them stands in the table it reads.
            loaded, plain, dataset = dataset.with_label_positions(), dataset.unaugmented(), dataset.dataset
        self._loaded, self._collate = loaded, collate
        self._samples = read_samples(
            dataset,
            plain,
            collate,
            label_key,
            id_column=settings.sample_id_column,
            trusted_column=settings.trusted_column,
            num_samples=settings.sat_num_samples,
        )
        refuse_labels(self._setup(), self._samples)
        self._label_check = LabelCheck(
            self._samples, self._num_classes(), refuse_changes=settings.sat_on_label_change == "refuse"
        )
        offsets = self._samples.offsets
        self._offsets = None if offsets is None else torch.from_numpy(offsets).to(self.args.device)
        self._fill_unknown = partial(given_labels, self._samples, plain, collate, label_key)
        if self._is_stream():
            self.train_dataset = NumberedStream(loaded, settings.sample_id_column, settings.sat_num_samples)
        else:
            self.train_dataset = NumberedDataset(loaded, self._samples.example_of)
        self.data_collator = NumberedCollator(collate, label_key, self._label_check)
        self._numbered = True
        try:
            yield
        finally:
            self.train_dataset, self.data_collator = found

    def _is_stream(self) -> bool:
        return isinstance(self.train_dataset, torch.utils.data.IterableDataset)

    def _without_unused_columns(self, dataset: Any, collator: Callable) -> tuple[Any, Callable]:
        """The data set and collator as upstream would load them, before ours go around.

        A transform set on the data set may read columns the model does not know: there they are removed from what it
        returns, not from what it is given.
        """
        if isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
            return self._remove_unused_columns(dataset, description="training"), collator
        return dataset, self._get_collator_with_removed_columns(collator, description="training")

    def _label_key(self) -> str:
        return self.label_names[0] if self.label_names else "labels"

    def _get_train_sampler(self, train_dataset=None):
        # Samplers look into the items (for their lengths): show them the user's.
        if isinstance(train_dataset, NumberedDataset):
            train_dataset = train_dataset.dataset
        sampler = super()._get_train_sampler(train_dataset)
        if self._numbered and isinstance(sampler, LengthGroupedSampler) and sampler.generator is None:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return SeededByEpoch(sampler, seed)
        return sampler

    def _run_epoch(self, *args, **kwargs):
        if hasattr(self.train_dataset, "set_epoch") and not self._is_stream():
            # Upstream tells the data set only where the sampler has no epoch of its own.
            self.train_dataset.set_epoch(kwargs["epoch"])
        if self._numbered:
            # Upstream does not reach a sampler under the wrappers of a resumed loader.
            set_epoch_of_samplers(kwargs["train_dataloader"], kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial):
        trained = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial
        )
        unsized = self._numbered and self._is_stream() and not has_length(self.train_dataset)
        if checkpoint is None or not unsized or self.args.ignore_data_skip:
            return trained
        # Upstream would skip the batches of all passes in the first one. `epoch` counts passes in whole numbers and, in
        # the rest, batches as shares of all steps.
        saved = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        passes = int(saved.epoch)
        return passes, round((saved.epoch - passes) * saved.max_steps * self.args.gradient_accumulation_steps)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self._numbered:
            # Callbacks may iterate over it and hand its batches to the model.
            self.callback_handler.train_dataloader = Unnumbered(train_dataloader)
        return prepared

    def _without_examples(self, inputs: Mapping) -> Mapping:
        """The batch as the user knows it; the example numbers are kept aside for its loss."""
        if EXAMPLE_KEY not in inputs:
            return inputs
        inputs = copy.copy(inputs)
        self._examples, self._positions = inputs.pop(EXAMPLE_KEY), inputs.pop(LABEL_POSITIONS, None)
        return inputs
