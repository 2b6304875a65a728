"""The evaluator, from the inputs of the stages that judge models."""

from pathlib import Path

from reverse_perturbation.config import Params
from reverse_perturbation.data.contract import read_obs
from reverse_perturbation.data.screen import read_split
from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval.evaluate import Evaluator


def evaluator_of(cells: str | Path, split: str | Path, params: Params) -> Evaluator:
    """Read the cells of the split and their labels.

    Raises
    ------
    InputError
        If a cell of the split is not among the cells.
    """
    frame = read_split(split)
    obs = read_obs(cells)
    strange = frame.loc[~frame["cell"].isin(obs.index), "cell"]
    if len(strange):
        raise InputError(f"{split}: cell {strange.iloc[0]!r} is not in {cells}; run `dvc repro split`")
    return Evaluator(
        cells=frame["cell"].to_numpy(dtype=object),
        legacy=obs.loc[frame["cell"], "condition"].astype(str).to_numpy(dtype=object),
        parts=frame["part"].to_numpy(dtype=object),
        fitted_space=params.labels,
        library=params.library,
        query=params.query,
    )
