"""What fine-tuning, caching, embedding and fusion know of a foundation model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.models.encoder.tokens import Batch, Tokens

Tokenizer = Callable[[MaskedScreen], Tokens]


class Backbone(nn.Module, ABC):
    """A transformer: tokens are embedded, then pass through layers that keep the width.

    Every weight is used through the ``forward`` of its own module, so that adapters put on a module take effect.

    Attributes
    ----------
    lora_paths
        Name in ``finetune.adaptation.lora.targets`` -> regular expression of the module's full path.
    """

    lora_paths: ClassVar[Mapping[str, str]]

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers a token."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of tokens it knows."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The transformer layers, from the input."""

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Return the input of the first layer, float [batch, tokens, width]."""

    @abstractmethod
    def transform(self, states: Tensor, padding: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Run layers ``first`` to before ``last`` on states [batch, tokens, width]; ``padding`` is True at padding."""

    @abstractmethod
    def shapes_embedding(self, name: str) -> bool:
        """Return whether a parameter changes the states; decoders and the like do not and are never trained here."""


class Checkpoint(ABC):
    """A loaded foundation model.

    Attributes
    ----------
    backbone
        Pretrained weights, in eval mode; fine-tuning copies it.
    """

    backbone: Backbone

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash of the folder it was loaded from."""

    @abstractmethod
    def tokenizer(self, screen: MaskedScreen, params: Params) -> Tokenizer:
        """Return what turns this screen, or one of cells resampled from it, into tokens.

        Whatever is fitted is fitted on the reference cells.
        """

    @abstractmethod
    def token_ids(self, screen: MaskedScreen) -> Tensor:
        """Return LongTensor: the token ids that the screen's genes can produce, each once, in order."""


def set_dropout(module: nn.Module, p: float) -> None:
    """Set every dropout in a model or a part of one."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = p
