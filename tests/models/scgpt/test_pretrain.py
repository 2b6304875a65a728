"""Pretraining in domain."""

from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint
from reverse_perturbation.models.scgpt.pretrain import pretrain
from tests.models.conftest import CPU, PARAMS


def test_pretraining_learns_without_labels(checkpoint, tokens):
    loaded = load_checkpoint(checkpoint)
    losses = []
    config = PARAMS.pretrain.model_copy(update={"epochs": 8, "batch_size": 16, "dropout": 0.0, "learning_rate": 0.01})
    pretrain(
        loaded.backbone,
        tokens,
        loaded.architecture,
        config,
        device=CPU,
        on_epoch=lambda epoch, loss: losses.append(loss),
    )
    assert losses[-1] < 0.6 * losses[0]
