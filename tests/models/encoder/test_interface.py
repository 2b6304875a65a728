"""Dropout of a whole model and of a part of one."""

import torch
from torch import nn

from reverse_perturbation.models.encoder.interface import set_dropout
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint


def test_every_dropout_of_the_part_is_set_and_no_other():
    inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.ModuleList([nn.Dropout(0.3)]))
    model = nn.ModuleDict({"before": nn.Dropout(0.1), "inner": inner})
    set_dropout(inner, 0.6)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.1, 0.6, 0.6]
    set_dropout(model, 0.0)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.0, 0.0, 0.0]


def test_a_dropout_itself_is_set():
    alone = nn.Dropout(0.2)
    set_dropout(alone, 0.5)
    assert alone.p == 0.5


def test_without_dropout_training_mode_computes_what_eval_mode_does(checkpoint, tokens):
    """Of a whole backbone, its attention included; with dropout it does not."""
    backbone, batch = load_checkpoint(checkpoint).backbone, tokens.batch(range(5))

    def states(train: bool) -> torch.Tensor:
        torch.manual_seed(0)
        backbone.train(train)
        with torch.no_grad():
            return backbone.transform(backbone.embed(batch), batch.padding)

    set_dropout(backbone, 0.0)
    assert torch.allclose(states(True), states(False), atol=1e-6)
    set_dropout(backbone, 0.3)
    assert not torch.allclose(states(True), states(False), atol=1e-2)
