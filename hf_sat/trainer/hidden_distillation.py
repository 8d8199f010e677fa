"""Distillation of hidden states in `transformers.Trainer`: both models hand them out of the passes they make anyway."""

from typing import Any

import torch
from torch import Tensor

from ..batch import Batch, SharedLabels, counted_positions
from ..config import refuse
from ..methods.hidden_distillation import HiddenDistillation
from ..recipe import refuse_hidden_distillation
from ..teacher import hidden_states_of, takes_hidden_states
from .distillation import DistillationMixin

FLAG = "output_hidden_states"


class HiddenDistillationMixin(DistillationMixin):
    """How hidden states of student and teacher meet; untouched at `kd_hidden_weight=0`.

    They are asked for as an input of the forward pass (`output_hidden_states=True`), and in training alone: that
    reaches the model through DDP, compilation and adapters, and neither its config nor what evaluation and prediction
    return is changed.
    """

    _hidden: HiddenDistillation | None = None  # of the run under way
    _student_layers: int | None = None  # known from its first pass on

    def _inner_training_loop(self, *args, **kwargs):
        self._hidden, self._student_layers = None, None
        return super()._inner_training_loop(*args, **kwargs)

    def _prepare_run(self) -> None:
        super()._prepare_run()
        if self._kd_settings.kd_hidden_weight:
            self._prepare_hidden()

    def _prepare_hidden(self) -> None:
        """What the run needs, and what can be refused before its first batch."""
        settings, student = self._kd_settings, self._base_model()
        for model, role in ((student, "model"), *((teacher, "teacher_model") for teacher in self._teachers.models)):
            is_pair = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
            refuse_hidden_distillation(settings, role, model, is_pair, takes_hidden_states(model))
        if self._own_columns:
            raise refuse(
                "kd_hidden_weight",
                settings.kd_hidden_weight,
                f"the teacher reads columns of its own ({', '.join(self._own_columns)}), so its positions are not the "
                "student's: remove them and take a teacher with the student's tokenizer, or set it to 0.",
            )
        self._hidden = HiddenDistillation(settings.kd_hidden_weight, settings.kd_hidden_loss, settings.kd_layer_map)

    # ---- the step ---------------------------------------------------------------------------------------------------

    def _model_inputs(self, inputs: SharedLabels) -> SharedLabels:
        inputs = super()._model_inputs(inputs)
        return inputs if self._hidden is None else SharedLabels({**inputs, FLAG: True})

    def _ask_teachers(self, batch: Batch) -> Tensor:
        if self._hidden is None:
            return super()._ask_teachers(batch)
        inputs, labels = self._inputs_of_teachers(batch)
        logits, states = self._teachers.logits_and_states(inputs, labels, labels.device)
        batch.teacher_states = [self._matched(each) for each in states]
        return logits

    def _matched(self, states: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Without the layers that are not matched, from the second batch on."""
        if self._student_layers is None:
            return states
        wanted = {theirs for _, theirs in self._hidden.pairs(self._student_layers, len(states) - 1)}
        return tuple(state if layer in wanted else None for layer, state in enumerate(states))

    def _own_loss(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None):
        if self._hidden is None:
            return super()._own_loss(outputs, labels, num_items_in_batch)
        states = hidden_states_of(outputs, f"model {type(self.model).__name__}")
        self._student_layers = len(states) - 1
        self._batch.student_states = states
        try:
            return super()._own_loss(outputs, labels, num_items_in_batch)
        finally:
            self._batch.student_states = None  # SAM keeps the batch, which must not keep the graph

    def _loss_parts(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        parts = super()._loss_parts(batch, logits)
        return parts if self._hidden is None else {**parts, "kd_hidden": self._hidden_loss(batch)}

    def _hidden_loss(self, batch: Batch) -> Tensor:
        """Sum over the examples, each as often as it has labels that count: as every part of the loss it is divided by
        the number of labels in the window, which makes it right at any accumulation and number of processes.
        """
        labels = batch.inputs[self._label_key()]
        ours = _by_example(batch.student_states, len(labels))
        counted = counted_positions(batch, ours[0])
        total = torch.zeros((), device=ours[0].device)
        for share, states in zip(self._teachers.shares, batch.teacher_states, strict=True):
            losses = self._hidden.losses(ours, _by_example(states, len(labels)), counted)
            total = total + share * (losses * batch.counted.reshape(len(labels), -1).sum(dim=1)).sum()
        return total

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        total = super()._total(parts)
        return total if self._hidden is None else total + self._hidden.weight * parts["kd_hidden"]

    # ---- the log ----------------------------------------------------------------------------------------------------

    def _kd_measures(self) -> list[str]:
        hidden = ["kd/hidden_loss"] if self._kd_settings.kd_hidden_weight else []
        return [*super()._kd_measures(), *hidden]

    def _measured(self, batch: Batch, logits: Tensor, parts: dict[str, Tensor]) -> list[Tensor]:
        hidden = [] if self._hidden is None else [parts["kd_hidden"]]
        return [*super()._measured(batch, logits, parts), *hidden]

    def _kd_settings_in_use(self) -> list[str]:
        hidden = [] if self._hidden is None else ["kd_hidden_weight", "kd_hidden_loss", "kd_layer_map"]
        return [*super()._kd_settings_in_use(), *hidden]


def _by_example(states: tuple[Tensor | None, ...], examples: int) -> tuple[Tensor | None, ...]:
    """Hidden states with all positions of an example together, where it has several sequences (multiple choice)."""

    def together(state: Tensor | None) -> Tensor | None:
        if state is None or state.dim() != 3 or len(state) == examples or len(state) % examples:
            return state
        return state.reshape(examples, -1, state.shape[-1])

    return tuple(map(together, states))
