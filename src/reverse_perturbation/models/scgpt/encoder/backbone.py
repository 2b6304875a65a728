"""scGPT's transformer: upstream's own ``TransformerModel`` with our stack of layers (see ``layers``)."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from reprlib import repr as short
from typing import Any

from torch import Tensor, nn

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Backbone
from reverse_perturbation.models.encoder.tokens import Batch
from reverse_perturbation.models.scgpt.encoder.layers import LayerStack

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scgpt says at import that flash_attn is absent; it is not needed
    from scgpt.model import TransformerModel

# Supported settings, the first value also where the key is absent; any other would give wrong embeddings.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "input_style": ("binned", "log1p"),
    "input_emb_style": ("continuous",),
    "cell_emb_style": ("cls",),
    "pre_norm": (False,),
    "norm_scheme": ("post",),
    "pad_token": ("<pad>",),
}
ANY = (-inf, inf)
WIDTHS = (1, 2**16)
VALUES = (1 - 2**24, 2**24)  # float32 tells these integers apart
# Field -> key of args.json, type, default (None: must be there), the lowest number allowed and what it must stay below.
FIELDS: dict[str, tuple[str, type, Any, tuple[float, float]]] = {
    "layers": ("nlayers", int, None, (1, 1000)),
    "heads": ("nheads", int, None, WIDTHS),
    "width": ("embsize", int, None, WIDTHS),
    "hidden": ("d_hid", int, None, WIDTHS),
    "dropout": ("dropout", float, 0.2, (0, 1)),
    "input_style": ("input_style", str, "binned", ANY),
    "n_bins": ("n_bins", int, 51, (3, 2**24)),  # no count, and at least two bins for counts
    "max_seq_len": ("max_seq_len", int, 1200, (1, 2**31)),
    "pad_token": ("pad_token", str, "<pad>", ANY),
    "pad_value": ("pad_value", int, -2, VALUES),
    "mask_value": ("mask_value", int, -1, VALUES),
    "classifier_layers": ("n_layers_cls", int, 3, (1, 100)),
    "mvc": ("MVC", bool, True, ANY),
}


@dataclass(frozen=True)
class Architecture:
    """The settings of ``args.json`` that matter here.

    ``input_style`` is upstream's: what the value encoder was trained on, ``binned`` (1 to ``n_bins`` - 1) or ``log1p``
    (log1p of counts per ten thousand).
    """

    layers: int
    heads: int
    width: int
    hidden: int
    dropout: float
    input_style: str
    n_bins: int
    max_seq_len: int
    pad_token: str
    pad_value: int
    mask_value: int
    classifier_layers: int
    mvc: bool

    @classmethod
    def from_args(cls, args: Mapping[str, Any], source: object) -> "Architecture":
        """Read an ``args.json``; ``source`` names it in errors.

        Raises
        ------
        InputError
            If a key is missing, mistyped, out of range or has a value this backbone does not support.
        """
        if not isinstance(args, Mapping):
            raise InputError(f"{source}: holds no object of settings; take args.json from the checkpoint's source")
        for key, values in SUPPORTED.items():
            if args.get(key, values[0]) not in values:
                known = " and ".join(map(repr, values))
                raise InputError(f"{source}: {key} is {short(args[key])}; only {known} {_are(values)} supported")
        fields: dict[str, Any] = {}
        for field, (key, kind, default, (lowest, limit)) in FIELDS.items():
            value = args.get(key, default)
            if value is None:
                raise InputError(f"{source}: {key} is missing; take args.json from the checkpoint's source")
            fits = isinstance(value, (int, float) if kind is float else kind) and (
                kind is bool or not isinstance(value, bool)
            )
            if not fits:
                raise InputError(f"{source}: {key} is {short(value)}; expected {kind.__name__}")
            if kind in (int, float) and not lowest <= value < limit:
                raise InputError(
                    f"{source}: {key} is {short(value)}; expected at least {lowest}"
                    + (f" and below {limit}" if limit < inf else "")
                )
            fields[field] = kind(value)
        if fields["width"] % fields["heads"]:
            raise InputError(f"{source}: embsize {fields['width']} is not divisible by nheads {fields['heads']}")
        return cls(**fields)

    def to_args(self) -> dict[str, Any]:
        """Return the settings under the keys of ``args.json``."""
        return {
            "nlayers": self.layers,
            "nheads": self.heads,
            "embsize": self.width,
            "d_hid": self.hidden,
            "dropout": self.dropout,
            "n_bins": self.n_bins,
            "max_seq_len": self.max_seq_len,
            "input_style": self.input_style,
            "input_emb_style": "continuous",
            "pad_token": self.pad_token,
            "pad_value": self.pad_value,
            "mask_value": self.mask_value,
            "n_layers_cls": self.classifier_layers,
            "no_cls": True,
            "MVC": self.mvc,
            "fast_transformer": True,
        }


def _are(values: tuple[Any, ...]) -> str:
    return "are" if len(values) > 1 else "is"


# Never trained here: these predict values, and nothing of the classifier depends on them.
DECODERS = re.compile(r"^(decoder|mvc_decoder|cls_decoder|flag_encoder|grad_reverse_discriminator)\b")
LAYER = r"transformer_encoder\.layers\.\d+\."


class ScgptBackbone(TransformerModel, Backbone):  # type: ignore[misc]
    """Upstream's model with our stack of layers, freshly initialised.

    Parameters
    ----------
    architecture
        Sizes.
    vocabulary
        Token -> id; upstream reads its length and the id of the pad token.
    """

    # The whole path: "linear1" alone would also match value_encoder.linear1.
    lora_paths = {  # noqa: RUF012
        "qkv": rf"{LAYER}self_attn\.Wqkv",
        "out_proj": rf"{LAYER}self_attn\.out_proj",
        "linear1": rf"{LAYER}linear1",
        "linear2": rf"{LAYER}linear2",
    }

    def __init__(self, architecture: Architecture, vocabulary: Mapping[str, int]):
        a = architecture
        super().__init__(
            ntoken=len(vocabulary),
            d_model=a.width,
            nhead=a.heads,
            d_hid=a.hidden,
            nlayers=1,  # upstream's own layers are replaced: one is enough
            nlayers_cls=a.classifier_layers,
            n_cls=1,
            vocab=vocabulary,
            dropout=a.dropout,
            pad_token=a.pad_token,
            pad_value=a.pad_value,
            do_mvc=a.mvc,
            n_input_bins=a.n_bins,
            use_fast_transformer=False,
        )
        self.transformer_encoder = LayerStack(a.layers, a.width, a.heads, a.hidden, a.dropout)

    @property
    def width(self) -> int:
        """Numbers a token."""
        return self.d_model  # type: ignore[return-value]

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens it knows."""
        return self.encoder.embedding.num_embeddings  # type: ignore[union-attr, return-value]

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, from the input."""
        return self.transformer_encoder.layers

    def embed(self, batch: Batch) -> Tensor:
        """Return the sum of gene and value embeddings, float [batch, tokens, width]."""
        result: Tensor = self.encoder(batch.ids) + self.value_encoder(batch.values)  # type: ignore[operator]
        return result

    def transform(self, states: Tensor, padding: Tensor, *, first: int = 0, last: int | None = None) -> Tensor:
        """Run layers ``first`` to before ``last`` on states [batch, tokens, width]."""
        result: Tensor = self.transformer_encoder(states, padding, first_layer=first, last_layer=last)
        return result

    def shapes_embedding(self, name: str) -> bool:
        """Return whether a parameter changes the states."""
        return not DECODERS.match(name)
