"""Share: weights written to files and folders, fetched from and sent to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import Self

from piip.api.held import Held
from piip.weights import hub
from piip.weights.card import write_card
from piip.weights.files import save_model


class Sharing(Held):
    """A model that is kept and given away."""

    def save(self, path: str | Path) -> Path:
        """Write the weights with their config: a `.safetensors` file, or a folder if `path` has no suffix.

        A folder gets a model card, `README.md`, unless somebody wrote one there by hand.
        """
        path = Path(path).expanduser()
        written = save_model(self.model, path)
        if written != path:
            write_card(path, self.config, self._facts)
        return written

    def save_pretrained(self, folder: str | Path, licence: str | None = None) -> Path:
        """Write `model.safetensors`, `config.json` and a model card, `README.md`, into `folder`; returns it.

        `licence`: an SPDX identifier for the card.
        """
        return hub.save_pretrained(self.model, folder, licence, self._facts)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, token: str | None = None, device: str | None = None
    ) -> Self:
        """A model saved by `save_pretrained` or `push_to_hub`: a folder, or the id of a repository on the Hub.

        Raises WeightsError where it cannot be fetched or loaded.
        """
        return cls(hub.fetch_pretrained(name, revision, token), device)

    def push_to_hub(
        self,
        repository: str,
        licence: str | None = None,
        private: bool = False,
        token: str | None = None,
        message: str = "Upload a PIIP model",
    ) -> str:
        """Upload the model and its card to `repository` ("user/name") on the Hub, made if needed; returns its URL."""
        return hub.push_to_hub(self.model, repository, licence, private, token, message, self._facts)
