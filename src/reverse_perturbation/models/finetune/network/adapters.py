"""Which weights of the backbone are trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Backbone
from reverse_perturbation.sections import Adaptation


def adapt(backbone: Backbone, config: Adaptation) -> list[str]:
    """Make exactly the weights of a mode trainable, in place.

    ======  ==========================================================================================
    mode    trained in the backbone
    ======  ==========================================================================================
    frozen  nothing, and there is no head either
    head    nothing
    last_n  the last ``last_layers`` transformer layers, their norms included
    lora    low-rank additions (Hu et al., arXiv 2106.09685) to the named linear maps of every layer, by peft
    full    everything that changes the states: embeddings and transformer
    ======  ==========================================================================================

    Parameters
    ----------
    backbone
        LoRA's layers are put into it.
    config
        Section ``finetune.adaptation``.

    Returns
    -------
    list of str
        Names of the trainable parameters.

    Raises
    ------
    InputError
        If ``last_layers`` is more than the backbone has.
    """
    backbone.requires_grad_(False)
    if config.mode == "last_n":
        if config.last_layers > len(backbone.layers):
            raise InputError(
                f"finetune.adaptation.last_layers: {config.last_layers}, but the checkpoint has "
                f"{len(backbone.layers)} layers; lower it"
            )
        for layer in backbone.layers[-config.last_layers :]:
            layer.requires_grad_(True)
    elif config.mode == "full":
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(backbone.shapes_embedding(name))
    elif config.mode == "lora":
        import peft  # takes seconds, so only where it is used

        peft.inject_adapter_in_model(
            peft.LoraConfig(
                r=config.lora.rank,
                lora_alpha=config.lora.alpha,
                lora_dropout=config.lora.dropout,
                target_modules="|".join(backbone.lora_paths[target] for target in config.lora.targets),
            ),
            backbone,
        )
    return [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]


def frozen_layers(backbone: Backbone, config: Adaptation) -> int:
    """Return how many layers, from the input, give the same states throughout training."""
    n_layers = len(backbone.layers)
    return {"frozen": n_layers, "head": n_layers, "last_n": n_layers - config.last_layers}.get(config.mode, 0)


@contextmanager
def frozen_while(backbone: nn.Module, frozen: bool) -> Iterator[None]:
    """Train nothing of a backbone inside the block, if ``frozen``."""
    weights = [parameter for parameter in backbone.parameters() if parameter.requires_grad and frozen]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
