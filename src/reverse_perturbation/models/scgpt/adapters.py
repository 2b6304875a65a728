"""Which weights of the backbone are trained."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from reverse_perturbation.config import Finetune
from reverse_perturbation.errors import InputError

LORA_PATHS = {
    "qkv": r"self_attn\.Wqkv",
    "out_proj": r"self_attn\.out_proj",
    "linear1": "linear1",
    "linear2": "linear2",
}
# Never trained here: they predict values, and nothing of the classifier depends on them.
DECODERS = re.compile(r"^(decoder|mvc_decoder|cls_decoder|flag_encoder|grad_reverse_discriminator)\b")


def adapt(backbone: nn.Module, config: Finetune) -> list[str]:
    """Make exactly the weights of a mode trainable, in place.

    ======  ==========================================================================================
    mode    trained in the backbone
    ======  ==========================================================================================
    frozen  nothing, and there is no head either
    head    nothing
    last_n  the last ``last_layers`` transformer layers, their norms included
    lora    low-rank additions (Hu et al., arXiv 2106.09685) to the named linear maps of every layer, by peft
    full    gene encoder, value encoder and transformer
    ======  ==========================================================================================

    Parameters
    ----------
    backbone
        Of :func:`backbone.build_backbone`. LoRA's layers are put into it.
    config
        ``adaptation``, ``last_layers``, ``lora``.

    Returns
    -------
    list of str
        Names of the trainable parameters.

    Raises
    ------
    InputError
        If more layers are asked for than there are.
    """
    backbone.requires_grad_(False)
    n_layers = len(backbone.transformer_encoder.layers)  # type: ignore[union-attr, arg-type]
    if config.adaptation == "last_n":
        if config.last_layers > n_layers:
            raise InputError(
                f"finetune.last_layers: {config.last_layers}, but the checkpoint has {n_layers} layers; lower it"
            )
        last = tuple(f"transformer_encoder.layers.{i}." for i in range(n_layers - config.last_layers, n_layers))
        _train(backbone, lambda name: name.startswith(last))
    elif config.adaptation == "full":
        _train(backbone, lambda name: not DECODERS.match(name))
    elif config.adaptation == "lora":
        import peft  # takes seconds, so only where it is used

        names = "|".join(LORA_PATHS[target] for target in config.lora.targets)
        # The whole path: "linear1" alone would also match value_encoder.linear1.
        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=config.lora.rank,
                lora_alpha=config.lora.alpha,
                lora_dropout=config.lora.dropout,
                target_modules=rf"transformer_encoder\.layers\.\d+\.({names})",
            ),
            backbone,
        )
    return [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]


def frozen_layers(backbone: nn.Module, config: Finetune) -> int:
    """Return how many layers, from the input, give the same states throughout training."""
    n_layers = len(backbone.transformer_encoder.layers)  # type: ignore[union-attr, arg-type]
    return {"frozen": n_layers, "head": n_layers, "last_n": n_layers - config.last_layers}.get(config.adaptation, 0)


@contextmanager
def held(backbone: nn.Module, yes: bool) -> Iterator[None]:
    """Train nothing of a backbone for a while, if ``yes``."""
    weights = [parameter for parameter in backbone.parameters() if parameter.requires_grad and yes]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def merge_lora(backbone: nn.Module) -> None:
    """Fold the low-rank additions into the weights they stand beside, in place."""
    import peft

    for module in backbone.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.merge()


def _train(backbone: nn.Module, wanted: Callable[[str], bool]) -> None:
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(wanted(name))
