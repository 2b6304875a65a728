"""scGPT's transformer layers with their attention written out, on padded or packed cells.

Upstream's stack, ``nn.TransformerEncoder``, takes a fused path in eval mode that skips adapters put on its weights, and
never calls ``out_proj`` as a module (pytorch #128413, #132700). The layers carry the names of the official checkpoint,
which was saved with flash attention: ``transformer_encoder.layers.N.self_attn.Wqkv`` and so on.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import layer_norm, relu, scaled_dot_product_attention

# Devices on which cells are packed, their tokens end to end. On a CPU, where batches are small and of cells of similar
# length, padding costs less than copying; a GPU fills its memory with batches of which half would be padding.
PACKED = frozenset({"cuda"})
HALF = (torch.bfloat16, torch.float16)  # what flash attention computes in


@dataclass(frozen=True)
class Padded:
    """Cells padded to the longest: ``allowed``, bool [batch, 1, 1, tokens], is False at padding."""

    allowed: Tensor

    def attend(self, qkv: Tensor, dropout: float) -> Tensor:
        """Mix each cell's values: [batch, tokens, width] from [batch, tokens, 3, heads, width / heads]."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=self.allowed, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class Packed:
    """Cells end to end, without padding.

    Parameters
    ----------
    padding
        bool [batch, tokens], True at padding.
    """

    def __init__(self, padding: Tensor):
        self.real = ~padding
        self.place = self.real.flatten().nonzero()[:, 0]  # of each token in the padded batch
        self.offsets = nn.functional.pad(self.real.sum(1).cumsum(0), (1, 0)).int()

    def pack(self, padded: Tensor) -> Tensor:
        """Return [n_tokens, ...] from [batch, tokens, ...]."""
        return padded.flatten(0, 1).index_select(0, self.place)  # indexing's gradient sorts, this one's does not

    def pad(self, packed: Tensor) -> Tensor:
        """Return [batch, tokens, ...] from [n_tokens, ...], zero at padding."""
        padded = packed.new_zeros(self.real.numel(), *packed.shape[1:])
        return padded.index_copy(0, self.place, packed).view(*self.real.shape, *packed.shape[1:])

    def attend(self, qkv: Tensor, dropout: float) -> Tensor:
        """Mix each cell's values: [n_tokens, width] from [n_tokens, 3, heads, width / heads].

        By flash attention, which takes no float32 and no dropout; else in a padded batch.
        """
        if not qkv.is_cuda or qkv.dtype not in HALF or dropout:
            return self.pack(Padded(self.real[:, None, None, :]).attend(self.pad(qkv), dropout))
        q, k, v = qkv.unbind(1)
        longest = self.real.shape[1]
        mixed = varlen_attn(q, k, v, self.offsets, self.offsets, longest, longest)
        return cast(Tensor, mixed).flatten(1)


class Norm(nn.LayerNorm):
    """Layer norm in the precision of its input.

    With autocast PyTorch's own returns float32 on a GPU, where the layers wait for memory: a fifth of their time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the shape and the dtype of x."""
        with torch.autocast(x.device.type, enabled=False):
            return layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Multi-head attention from explicit calls; every weight is used through its module's ``forward``."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        # As nn.MultiheadAttention initialises.
        nn.init.xavier_uniform_(self.Wqkv.weight)
        nn.init.zeros_(self.Wqkv.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, cells: Padded | Packed) -> Tensor:
        """Attend within each cell; x is [batch, tokens, width] or [n_tokens, width], as ``cells`` says."""
        qkv = self.Wqkv(x).unflatten(-1, (3, self.heads, -1))
        return self.out_proj(cells.attend(qkv, self.dropout.p if self.training else 0.0))


class EncoderLayer(nn.Module):
    """One transformer layer, normalised after each part, with ReLU, as scGPT's."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn = SelfAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = Norm(width)
        self.norm2 = Norm(width)
        self.dropout = nn.Dropout(dropout)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor, cells: Padded | Packed) -> Tensor:
        """Map x [batch, tokens, width] or [n_tokens, width] to the same shape."""
        x = self.norm1(x + self.dropout1(self.self_attn(x, cells)))
        return self.norm2(x + self.dropout2(self.linear2(self.dropout(relu(self.linear1(x))))))


class LayerStack(nn.Module):
    """The stack of layers, called as upstream calls ``nn.TransformerEncoder``."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, hidden, dropout) for _ in range(layers))

    def forward(
        self, src: Tensor, src_key_padding_mask: Tensor, first_layer: int = 0, last_layer: int | None = None
    ) -> Tensor:
        """Run layers ``first_layer`` to before ``last_layer`` on src [batch, tokens, width].

        ``src_key_padding_mask`` [batch, tokens] is True at padding, which no token attends to; what stands there in the
        result nobody reads.
        """
        layers = self.layers[first_layer:last_layer]
        if src.device.type in PACKED:
            packed, device = Packed(src_key_padding_mask), src.device.type
            half = torch.is_autocast_enabled(device)
            states = packed.pack(src.to(torch.get_autocast_dtype(device)) if half else src)
            return packed.pad(_run(layers, states, packed).to(src.dtype))
        return _run(layers, src, Padded(~src_key_padding_mask[:, None, None, :]))


def _run(layers: nn.ModuleList, states: Tensor, cells: Padded | Packed) -> Tensor:
    for layer in layers:
        states = layer(states, cells)
    return states
