"""The model card of `transformers.Trainer`, with what its methods were and what came of them."""

import os

from ..model_card import TAG, CardEntry, card_section, with_section

CARD_FILE = "README.md"


class ModelCardMixin:
    """Adds to the model card, which `push_to_hub` writes too; untouched where no method of ours took part."""

    def _card_entries(self) -> list[CardEntry]:
        """Of the methods that took part in the last run."""
        return []

    def create_model_card(self, language=None, license=None, tags=None, *args, **kwargs):
        entries = self._card_entries()
        if entries:
            tags = [*([tags] if isinstance(tags, str) else tags or ()), TAG]
        super().create_model_card(language, license, tags, *args, **kwargs)
        if not entries or not self.is_world_process_zero():
            return
        path = os.path.join(self.args.output_dir, CARD_FILE)
        with open(path, encoding="utf-8") as file:
            card = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(with_section(card, card_section(entries)))
