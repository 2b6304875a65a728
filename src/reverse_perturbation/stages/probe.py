"""Fit the leak probes under every mask."""

import argparse
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from anndata import AnnData

from reverse_perturbation.analysis.probe import leaks, probe_mask
from reverse_perturbation.analysis.single_genes import single_genes, suspicions
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.data.screen.mask import apply_mask
from reverse_perturbation.data.screen.masked_screen import read_split
from reverse_perturbation.data.screen.normalize import log1p_cp10k
from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.sections import Mask
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import sha256, write_json


def probe(args: argparse.Namespace, params: Params) -> None:
    """Write the metrics of every probe."""
    adata, frame = read_cells(args.cells), read_split(args.split)
    places = adata.obs_names.get_indexer(frame["cell"])
    if (places < 0).any():
        raise InputError(f"{args.split}: holds cells that are not in {args.cells}; run `dvc repro split`")
    labels, parts = frame["condition"].to_numpy(dtype=object), frame["part"].to_numpy(dtype=object)
    masks: tuple[Mask, ...] = get_args(Mask)
    metrics = {mask: probe_mask(adata, places, labels, parts, mask) for mask in masks}
    leaking = leaks(metrics)
    alone = {mask: _single_genes(adata, places[parts != "query"], labels[parts != "query"], mask) for mask in masks}
    provenance = {"data_sha256": sha256(args.cells), "split_sha256": sha256(args.split), "labels": params.labels}
    write_json(args.metrics, {"masks": metrics, "leaks": leaking, "single_genes": alone, "provenance": provenance})
    found = f"LEAK, above chance although masked: {', '.join(leaking)}" if leaking else "no leak found"
    if suspected := suspicions(alone):
        found += f"; warning: each of these genes tells a masked target alone: {listed(suspected)}"
    print(f"probe: {found}")


def _single_genes(adata: AnnData, known: np.ndarray, labels: np.ndarray, mask: Mask) -> dict[str, Any]:
    """Look for genes that tell a target alone, in the reference and validation cells under a mask."""
    masked = apply_mask(adata, mask)
    expression = log1p_cp10k(masked.counts[known], masked.totals[known])
    return single_genes(expression, labels, adata.var_names.to_numpy(dtype=object))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells", "--split")
    arguments.add_argument("--metrics", required=True, help="where to write their metrics, .json")
    run(probe, arguments, argv)


if __name__ == "__main__":
    main()
