"""SAM as it is commonly written down: two passes, and Python loops over the parameters (as in davda54/sam)."""

import torch
from transformers import Trainer

RHO = 0.1


class PerParameterSAM(Trainer):
    """The least that makes `Trainer` follow the gradient at `w + e`, for one micro-batch a step on one process."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        again = dict(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        before = self._climb(model)
        model.zero_grad()
        super().training_step(model, again, num_items_in_batch)
        with torch.no_grad():
            for parameter, weight in before.items():
                parameter.data = weight
        return loss

    @torch.no_grad()
    def _climb(self, model) -> dict:
        """Add `rho * g / |g|` to the weights; returns what they were."""
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norms = torch.stack([parameter.grad.norm(p=2) for parameter in trained])
        scale = RHO / (norms.norm(p=2) + 1e-12)
        before = {}
        for parameter in trained:
            before[parameter] = parameter.data.clone()
            step = parameter.grad * scale
            parameter.add_(step)
        return before
