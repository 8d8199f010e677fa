"""What the last layer of a classifier is given: features, by which neighbors are found where logits say too little."""

import torch
from torch import Tensor, nn


class HeadInputs:
    """Watches the linear layers of a model that have one output per class, and keeps what the last of them was given.

    Args:
        model: any model; wrappers may come around it later.
        num_classes: C.

    Attributes:
        width: D, of what such a layer is given; None where there is none, or several of unlike widths.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        >>> with HeadInputs(model, num_classes=2) as head:
        ...     logits = model(torch.ones(5, 4))
        ...     head.width, head.of(logits).shape
        (3, torch.Size([5, 3]))
    """

    def __init__(self, model: nn.Module, num_classes: int):
        self._seen: tuple[Tensor, Tensor] | None = None
        heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == num_classes]
        widths = {head.in_features for head in heads}
        self.width: int | None = widths.pop() if len(widths) == 1 else None
        self._hooks = [head.register_forward_hook(self._see) for head in heads if self.width is not None]

    def _see(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if module.training and args:
            self._seen = args[0].detach(), output.detach()

    @torch.no_grad()
    def of(self, logits: Tensor) -> Tensor:
        """Features behind logits (B, C), float32 (B, D); NaN where they are not to be found.

        Of a head that scores each position, as those of decoders do, they are those at the first position whose scores
        became the logits.
        """
        (features, scores), self._seen = self._seen or (logits, logits), None
        if features.dim() == 3 and scores.shape[::2] == logits.shape:
            chosen = (scores.to(logits.dtype) == logits[:, None]).all(dim=-1).long().argmax(dim=1)
            features = features[torch.arange(len(chosen), device=chosen.device), chosen]
        if features.shape != (len(logits), self.width):
            return torch.full((len(logits), self.width), torch.nan, device=logits.device)
        return features.float()

    def close(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> "HeadInputs":
        return self

    def __exit__(self, *error) -> None:
        self.close()
