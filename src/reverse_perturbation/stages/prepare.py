"""Simulate a screen or read the user's file, check it, and write the prepared cells."""

import argparse
from collections.abc import Sequence

import pandas as pd

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.data.screen.mask import target_columns
from reverse_perturbation.errors import InputError, listed
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.h5ad import read_source
from reverse_perturbation.prepare.simulate import simulate
from reverse_perturbation.prepare.targets import check_targets
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import sha256


def prepare(args: argparse.Namespace, params: Params) -> None:
    """Write the prepared cells."""
    params.check_baselines()
    data = params.data
    if data.source == "simulated":
        try:
            table = pd.read_csv(data.path)
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
            raise InputError(
                f"data.path: {data.path} is not a table of conditions (CSV); "
                "for an .h5ad file set data.source=h5ad as well"
            ) from None
        adata = simulate(table, data.simulated, list(default_vocabulary()), load_aliases())
    else:
        adata = read_source(data.path)
    digest = sha256(data.path)
    if data.sha256 not in (None, digest):
        raise InputError(f"{data.path}: its sha256 is {digest}, but data.sha256 is {data.sha256}; correct one of them")
    labels = adata.obs["condition"].astype(str).unique()
    targets = target_columns(labels, adata.var_names)
    unknown = check_targets(data.path, targets, list(adata.var_names), default_vocabulary())
    write_cells(args.output, adata)
    controls = int(adata.obs["control"].sum())
    unmeasured = sum(not columns for columns in targets.values())
    read_as = adata.uns["source"].get("labels_read_as", [])
    notes = f"; labels read: {listed(read_as)}" if read_as else ""
    notes += "".join(f"; warning: {warning}" for warning in adata.uns["source"].get("depth_warnings", []))
    notes += f"; warning: targets that are no known gene symbols: {listed(unknown)}" if unknown else ""
    print(
        f"prepare: {adata.n_obs:,} cells x {adata.n_vars:,} genes from {data.name} data, {controls:,} control cells, "
        f"{len(labels) - 1} perturbed conditions of {len(targets)} targets, {unmeasured} of them not measured, so not "
        f"masked{notes}; sha256 of {data.path}: {digest} -> {args.output}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", required=True, help="where to write the prepared cells, .h5ad")
    run(prepare, arguments, argv)


if __name__ == "__main__":
    main()
