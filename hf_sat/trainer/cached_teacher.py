"""Teachers in `transformers.Trainer`: asked about a batch, or about the whole training set once, for a cache."""

import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from ..batch import Batch, flat_logits
from ..config import DistillationArguments, refuse
from ..fingerprints import of_data, of_models, of_preprocessing
from ..rng import preserved_rng
from ..teacher import Teachers, reads_labels
from ..teacher_cache import Form, TeacherCache
from .step import StepMixin

# Seconds between two moments at which a build that is killed goes on.
SECONDS_BETWEEN_MARKS = 5.0


class CachedTeacherMixin(StepMixin):
    """How teachers are asked, and how their answers are kept."""

    _teachers: Teachers | None = None  # of the run under way, where they are asked at each step
    _teacher_inputs: Mapping[str, Any] | None = None  # of the batch, where teachers have columns of their own
    _kd_settings: DistillationArguments

    def _ask_teachers(self, batch: Batch) -> Tensor:
        inputs, labels = self._inputs_of_teachers(batch)
        return self._teachers.logits(inputs, labels, labels.device)

    def _inputs_of_teachers(self, batch: Batch) -> tuple[Mapping[str, Any], Tensor]:
        """What they are called with, and the labels."""
        inputs = batch.inputs if self._teacher_inputs is None else self._teacher_inputs
        return inputs, batch.inputs[self._label_key()]

    def _filled_cache(self) -> TeacherCache:
        """The logits of all examples: found, or computed by all processes together."""
        folder = self._kd_settings.kd_cache_dir
        with preserved_rng():
            form, fingerprint = self._form(), self._fingerprint()
            self.accelerator.wait_for_everyone()
            cache = TeacherCache.find(folder, form, fingerprint)
            self.accelerator.wait_for_everyone()
            if cache is None:
                if self.accelerator.is_main_process:
                    TeacherCache.make(folder, form, self._num_teacher_classes(), fingerprint)
                self.accelerator.wait_for_everyone()
                cache = TeacherCache.find(folder, form, fingerprint)
            lacking = [] if cache is None else [cache.missing(epoch) for epoch in range(form.epochs)]
            self.accelerator.wait_for_everyone()  # shares are of one list: nobody fills what another has yet to count
            for epoch, examples in enumerate(lacking):
                self._fill(cache, epoch, self._share(examples))
            self.accelerator.wait_for_everyone()
        if cache is None or any(len(cache.missing(epoch)) for epoch in range(form.epochs)):
            raise refuse("kd_cache_dir", folder, "processes do not see each other's files there; share the folder.")
        return cache

    def _form(self) -> Form:
        settings, epochs = self._kd_settings, 1
        if settings.kd_cache_per_epoch:
            if self.args.max_steps > 0:
                raise refuse("kd_cache_per_epoch", True, "max_steps does not tell the epochs; set num_train_epochs.")
            epochs = math.ceil(self.args.num_train_epochs)
        return Form(
            num_examples=self._samples.num_examples,
            num_rows=self._samples.num_rows,
            epochs=epochs,
            dtype=settings.kd_cache_dtype,
            top_k=settings.kd_cache_top_k,
            temperature=settings.kd_temperature if settings.kd_cache_top_k is not None else None,
        )

    def _fingerprint(self) -> dict[str, str]:
        """What the logits follow from, and must be as it was where they are read."""
        teachers, precision = self._teachers, str(self.accelerator.mixed_precision)
        with_labels = any(map(reads_labels, teachers.models))
        orders = [None if order is None else order.tolist() for order in teachers.orders]
        views = []
        for epoch in range(2) if hasattr(self._loaded, "set_epoch") else range(1):
            self._set_data_epoch(epoch)
            views.append(of_preprocessing(self._loaded, self._collate, with_labels))
        self._set_data_epoch(0)
        if len(set(views)) > 1 and not self._kd_settings.kd_cache_per_epoch:
            raise refuse(
                "kd_cache_dir",
                self._kd_settings.kd_cache_dir,
                "train_dataset gives another view of an example in each epoch; set kd_cache_per_epoch=True, or leave "
                "kd_cache_dir out.",
            )
        offsets = None if self._samples.offsets is None else self._samples.offsets.tolist()
        return {
            "the teacher": of_models(teachers.models, teachers.shares, orders, precision),
            "the data": of_data(self._loaded, with_labels),
            "the label positions": hashlib.blake2b(repr(offsets).encode(), digest_size=16).hexdigest(),
            "the preprocessing": " ".join(views),
        }

    def _set_data_epoch(self, epoch: int) -> None:
        if hasattr(self._loaded, "set_epoch"):
            self._loaded.set_epoch(epoch)

    def _num_teacher_classes(self) -> int:
        """As many as there are in the logits of a first example."""
        (_, logits), *_ = self._logits_of(np.zeros(1, np.int64))
        return logits.shape[-1]

    def _fill(self, cache: TeacherCache, epoch: int, examples: np.ndarray) -> None:
        """Compute the logits of these examples in an epoch."""
        if not len(examples):
            return
        self._set_data_epoch(epoch)
        bar = tqdm(total=len(examples), desc="logits of the teacher", disable=self._hides_progress())
        marked, written, at = 0, 0, time.monotonic()
        for rows, logits in self._logits_of(examples):
            cache.write(epoch, rows, logits)
            written = min(len(examples), written + self.args.eval_batch_size)
            bar.update(written - bar.n)
            if written == len(examples) or time.monotonic() - at > SECONDS_BETWEEN_MARKS:
                cache.mark(epoch, examples[marked:written])
                marked, at = written, time.monotonic()
        bar.close()
        self._set_data_epoch(0)

    def _share(self, examples: np.ndarray) -> np.ndarray:
        """What this process does of them; on several machines, which share files but no memory, one does all."""
        machines = self.args.world_size > int(os.environ.get("LOCAL_WORLD_SIZE", self.args.world_size))
        if machines:
            return examples if self.accelerator.is_main_process else examples[:0]
        return examples[self.args.process_index :: self.args.world_size]

    def _hides_progress(self) -> bool:
        return bool(self.args.disable_tqdm) or not self.is_local_process_zero()

    def _logits_of(self, examples: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """State rows and logits of the label positions of these examples, batch by batch."""
        data = Subset(self.train_dataset, self._positions_of(examples).tolist())
        workers = self.args.dataloader_num_workers
        loader = DataLoader(data, self.args.eval_batch_size, collate_fn=self.data_collator, num_workers=workers)
        for inputs in loader:
            inputs = self._without_examples(self._prepare_inputs(inputs))
            batch = super()._prepare_batch(inputs)
            with self.compute_loss_context_manager():
                logits = flat_logits(self._ask_teachers(batch), batch)
            yield batch.rows[batch.counted], logits[batch.counted.to(logits.device)]
        self._examples = self._teacher_inputs = None

    def _positions_of(self, examples: np.ndarray) -> np.ndarray:
        if self._samples.example_of is None:
            return examples
        return np.argsort(self._samples.example_of)[examples]
