"""Layouts of published scGPT weights, and their translation to the official names."""

import re
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor

from reverse_perturbation.errors import InputError

Layout = Literal["official", "pytorch_attention", "flash_impl", "nano", "rehost"]

# Tensors that must all be present, and those that may be absent or extra because they do not change the states.
REQUIRED = re.compile(r"^(encoder|value_encoder|transformer_encoder)\.")
OPTIONAL = re.compile(r"^(decoder|mvc_decoder|cls_decoder|flag_encoder|pert_encoder|grad_reverse_discriminator|sim)\b")

# What DistributedDataParallel, torch.compile, peft and classes that hold the model put in front, in any nesting.
WRAPPERS = re.compile(r"^((module|_orig_mod|base_model|model)\.)+")

RENAMES: dict[Layout, tuple[tuple[str, str], ...]] = {
    "official": (),
    # saved without flash attention: nn.MultiheadAttention's fused weights have the same order, q, k, v
    "pytorch_attention": ((r"self_attn\.in_proj_(weight|bias)$", r"self_attn.Wqkv.\1"),),
    # saved with flash attention by scGPT's main branch since its pull request 351
    "flash_impl": ((r"self_attn\._impl\.", "self_attn."),),
    # encoder only, in_proj an nn.Linear
    "nano": ((r"self_attn\.in_proj\.", "self_attn.Wqkv."),),
    # Hugging Face re-hosts
    "rehost": (
        (r"^gene_encoder\.", "encoder."),
        (r"^transformer\.layers\.", "transformer_encoder.layers."),
        (r"^expr_decoder\.", "decoder."),
        (r"self_attn\.in_proj_(weight|bias)$", r"self_attn.Wqkv.\1"),
        (r"self_attn\.in_proj\.", "self_attn.Wqkv."),
    ),
}


def detect(names: Collection[str]) -> Layout:
    """Recognise the layout by the names, without :data:`WRAPPERS`."""
    if any(name.startswith(("gene_encoder.", "transformer.layers.")) for name in names):
        return "rehost"
    if any("self_attn._impl." in name for name in names):
        return "flash_impl"
    if any("self_attn.in_proj_" in name for name in names):
        return "pytorch_attention"
    if any("self_attn.in_proj." in name for name in names):
        return "nano"
    return "official"


def to_official(state: Mapping[str, Tensor], source: object) -> tuple[dict[str, Tensor], Layout]:
    """Rename tensors of any layout to the official names; tensors are not changed. ``source`` names them in errors.

    Raises
    ------
    InputError
        If two tensors have the same official name, so that one would hide the other.
    """
    bare = {name: WRAPPERS.sub("", name).replace("._orig_mod.", ".") for name in state}
    layout = detect(bare.values())
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for original, name in bare.items():
        for pattern, replacement in RENAMES[layout]:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise InputError(f"{source}: {origin[name]} and {original} are the same tensor, {name}; keep one of them")
        renamed[name], origin[name] = state[original], original
    return renamed, layout
