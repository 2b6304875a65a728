"""What is read from the backbone's output."""

import torch

from reverse_perturbation.models.finetune.network.heads import GeneReadout, Readout

# Two cells: <cls> is token 9, genes are 0 to 2, padding is 8.
IDS = torch.tensor([[9, 0, 2], [9, 1, 8]])
PADDING = torch.tensor([[False, False, False], [False, False, True]])
HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 10.0], [99.0, 99.0]]])


def test_cls_and_mean_by_hand():
    found = Readout(("cls", "mean"), width=2)(HIDDEN, IDS, PADDING)
    assert found.tolist() == [[1, 2, 4, 5], [7, 8, 9, 10]]


def test_a_cell_without_genes_has_mean_zero():
    found = Readout(("mean",), width=2)(HIDDEN[:, :1], IDS[:, :1], PADDING[:, :1])
    assert found.tolist() == [[0, 0], [0, 0]]


def test_genes_are_read_at_their_own_place():
    readout = GeneReadout(width=2, token_ids=torch.tensor([0, 1, 2]), vocabulary_size=10, rank=1, out=3)
    with torch.no_grad():
        readout.project.weight.copy_(torch.tensor([[1.0, 0.0]]))  # the first number of each token
        readout.project.bias.zero_()
        readout.mix.weight.copy_(torch.eye(3))
    assert readout(HIDDEN, IDS, PADDING).tolist() == [[3, 0, 5], [0, 9, 0]]


def test_the_order_of_genes_and_padding_do_not_matter():
    torch.manual_seed(0)
    genes = GeneReadout(width=2, token_ids=torch.tensor([0, 1, 2]), vocabulary_size=10, rank=2, out=4)
    readout = Readout(("cls", "mean", "genes"), width=2, genes=genes)
    order = [0, 2, 1]
    padded = [torch.cat([t, t[:, :1]], dim=1) for t in (HIDDEN, IDS)]
    more = torch.cat([PADDING, torch.ones(2, 1, dtype=torch.bool)], dim=1)
    base = readout(HIDDEN, IDS, PADDING)
    assert torch.allclose(readout(HIDDEN[:, order], IDS[:, order], PADDING[:, order]), base)
    assert torch.allclose(readout(*padded, more), base)
