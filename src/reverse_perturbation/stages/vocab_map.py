"""Find each gene's token in the foundation model's vocabulary, and how much of the screen that covers."""

import argparse
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_cells
from reverse_perturbation.data.screen.genes import (
    FEW_UMIS,
    are_targets,
    coverage,
    load_aliases,
    map_genes,
    without_token,
)
from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.models.encoder import read_vocabulary
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_json, write_text

MUCH_HIDDEN = 0.5  # share of UMIs; 0.27 at most in the real screens at hand


def vocab_map(args: argparse.Namespace, params: Params) -> None:
    """Write the map and its coverage."""
    adata = read_cells(args.cells)
    vocabulary = read_vocabulary(params)
    mapped = map_genes(adata.var_names, vocabulary, load_aliases())
    targets = set().union(*(genes_of(label) for label in adata.obs["condition"].astype(str).unique()))
    umis = np.asarray(adata.layers["counts"].sum(axis=0, dtype=np.float64)).ravel()
    try:
        covered = coverage(mapped, map_genes(sorted(targets), vocabulary, load_aliases()), umis)
    except InputError as error:
        file = adata.uns.get("source", {}).get("file")
        raise InputError(f"{args.cells}{f' (made of {file})' if file else ''}: {error}") from None
    write_text(args.output, mapped.to_csv(index=False, lineterminator="\n"))
    write_json(args.metrics, covered)
    before, after = covered["before_aliases"], covered["after_aliases"]
    few, hidden = "", _hidden_by_all_targets(adata.layers["counts"], are_targets(adata.var_names, targets))
    if after["umis"] < FEW_UMIS:
        few = (
            f"; warning: the foundation model sees {after['umis']:.1%} of UMIs only; without a token are, for example, "
            f"{', '.join(without_token(mapped, umis))}"
        )
    print(
        f"vocab_map: {after['genes']:.1%} of {len(mapped):,} genes have a token ({before['genes']:.1%} without "
        f"aliases), {after['umis']:.1%} of UMIs; targets without one: "
        f"{listed(covered['unmapped_targets']) or 'none'}{few}; {hidden}"
    )


def _hidden_by_all_targets(counts: sp.csr_matrix, are_hidden: np.ndarray) -> str:
    """Say what is left of the counts under the mask ``all_targets``, before anything is fitted."""
    left = counts[:, ~are_hidden]
    share = 1 - left.sum(dtype=np.float64) / counts.sum(dtype=np.float64)
    empty = int((left.getnnz(axis=1) == 0).sum())
    warning = "warning: " if share > MUCH_HIDDEN else ""
    genes = len(np.unique(left.indices))
    return (
        f"{warning}the mask all_targets hides {share:.1%} of UMIs and leaves {genes:,} genes with counts; "
        f"cells without any: {empty:,}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__, "--cells")
    arguments.add_argument("--output", required=True, help="where to write the map, .csv")
    arguments.add_argument("--metrics", required=True, help="where to write the coverage, .json")
    run(vocab_map, arguments, argv)


if __name__ == "__main__":
    main()
