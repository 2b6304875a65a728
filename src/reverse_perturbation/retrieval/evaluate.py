"""One evaluator for every model: predictions in, scores out; it does not know which model it evaluates."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.special import softmax

from reverse_perturbation.conditions import LabelSpace, in_space
from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.contract import read_obs
from reverse_perturbation.data.screen.masked_screen import read_split
from reverse_perturbation.errors import InputError
from reverse_perturbation.metrics.ranks.rank import translate
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.retrieval.query import pseudobulk
from reverse_perturbation.retrieval.transform import Transform
from reverse_perturbation.sections import Library, Query, QueryKind, Ranking
from reverse_perturbation.storage import write_atomically


@dataclass(frozen=True)
class QuerySetting:
    """How queries are ranked: by ``classifier`` or by a kind of library; which queries; in which label space."""

    ranking: str
    query: QueryKind
    labels: LabelSpace


@dataclass(frozen=True)
class Scores:
    """The score matrix of one model under one setting.

    Attributes
    ----------
    queries
        Names of the queries, object array of str: cell ids, or numbered draws of a condition.
    labels
        True condition of each query, object array of str.
    conditions
        Candidates, object array of str.
    scores
        float [n_queries, n_conditions], higher is better: probabilities of a classifier, in float64 because in
        float32 those below 1e-45 would all be 0 and tie; or what a ``LibraryRanker`` gives.
    """

    queries: np.ndarray
    labels: np.ndarray
    conditions: np.ndarray
    scores: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write an .npz without pickled objects, atomically."""
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                queries=self.queries.astype(str),
                labels=self.labels.astype(str),
                conditions=self.conditions.astype(str),
                scores=self.scores,
            )

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing, broken, or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(
                    file["queries"].astype(object),
                    file["labels"].astype(object),
                    file["conditions"].astype(object),
                    file["scores"],
                )
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; run `dvc repro` to make it") from None
        except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
            raise InputError(f"{path}: not the scores of a model ({error}); run `dvc repro` again") from None


@dataclass(frozen=True)
class Evaluator:
    """Scores a model's predictions on the cells of one part, with libraries of others.

    Attributes
    ----------
    cell_ids
        In the order of the predictions.
    legacy
        Legacy label of each cell.
    parts
        Part of each cell.
    fitted_space
        Label space the classifiers were fitted in.
    library, query
        Sections of params.yaml.

    Raises
    ------
    InputError
        If a cell occurs twice: it could be a query and stand in the library.
    """

    cell_ids: np.ndarray
    legacy: np.ndarray
    parts: np.ndarray
    fitted_space: LabelSpace
    library: Library
    query: Query

    def __post_init__(self) -> None:
        unique, counts = np.unique(self.cell_ids.astype(str), return_counts=True)
        if len(unique) < len(self.cell_ids):
            raise InputError(
                f"split: cell {str(unique[counts > 1][0])!r} occurs more than once, so it could be a query and in the "
                "library; run `dvc repro split`"
            )

    @classmethod
    def read(cls, cells_path: str | Path, split_path: str | Path, params: Params) -> "Evaluator":
        """Read the cells of a split and their labels.

        Parameters
        ----------
        cells_path, split_path
            Files of the stages prepare and split.
        params
            All of params.yaml.

        Raises
        ------
        InputError
            If a cell of the split is not among the cells.
        """
        frame, obs = read_split(split_path), read_obs(cells_path)
        unknown = frame.loc[~frame["cell"].isin(obs.index), "cell"]
        if len(unknown):
            raise InputError(f"{split_path}: cell {unknown.iloc[0]!r} is not in {cells_path}; run `dvc repro split`")
        return cls(
            cell_ids=frame["cell"].to_numpy(dtype=object),
            legacy=obs.loc[frame["cell"], "condition"].astype(str).to_numpy(dtype=object),
            parts=frame["part"].to_numpy(dtype=object),
            fitted_space=params.labels,
            library=params.library,
            query=params.query,
        )

    def headline(self, predictions: Predictions, ranking: Ranking) -> QuerySetting:
        """Return the setting of the headline: ``ranking`` where the model allows it."""
        classify = predictions.log_proba is not None and (ranking == "classifier" or predictions.embedding is None)
        return QuerySetting("classifier" if classify else self.library.kind, self.query.kind, self.fitted_space)

    def scores(
        self,
        predictions: Predictions,
        setting: QuerySetting,
        library_parts: tuple[str, ...] = ("reference", "validation"),
        query_part: str = "query",
    ) -> Scores:
        """Score the queries of a part.

        A pseudo-bulk averages embeddings, or log-probabilities in the space the classifier was fitted in; only
        then are these translated to another space and made probabilities.

        Raises
        ------
        InputError
            If the predictions are not of these cells, or no condition has cells enough for a pseudo-bulk.
        """
        in_library = self.check(predictions, library_parts)
        groups, truth, names = self.queries(setting, query_part)
        if setting.ranking == "classifier":
            return Scores(names, truth, *self.classify(predictions, groups, setting.labels, in_library))
        assert predictions.embedding is not None
        library = self.library.model_copy(update={"kind": setting.ranking})
        transform = Transform.fit(library.embedding, predictions.embedding[in_library], predictions.control_mean)
        ranker = LibraryRanker(library).fit(
            transform(predictions.embedding[in_library]), in_space(self.legacy, setting.labels)[in_library]
        )
        return Scores(names, truth, ranker.conditions, ranker.scores(average(transform(predictions.embedding), groups)))

    def check(self, predictions: Predictions, library_parts: tuple[str, ...]) -> np.ndarray:
        """Return the rows of the cells in some parts, after checking that the predictions are of these cells.

        Raises
        ------
        InputError
            If they are not.
        """
        if list(predictions.cell_ids) != list(self.cell_ids):
            raise InputError("predictions are not of the cells of this split, in its order; run `dvc repro`")
        return np.flatnonzero(np.isin(self.parts, library_parts))

    def classify(
        self, predictions: Predictions, groups: np.ndarray, labels: LabelSpace, in_library: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the conditions and their probabilities, float64 [n_queries, n_conditions], in a label space."""
        assert predictions.log_proba is not None
        assert predictions.conditions is not None
        rows = average(predictions.log_proba, groups)
        conditions = np.asarray(predictions.conditions, dtype=object)
        if labels != self.fitted_space:
            counts = dict(zip(*np.unique(self.legacy[in_library].astype(str), return_counts=True), strict=True))
            rows, conditions = translate(rows, conditions, counts, labels)
        return conditions, softmax(rows.astype(np.float64), axis=1)

    def skipped(self, setting: QuerySetting, query_part: str = "query") -> dict[str, int]:
        """Return the conditions with too few cells for a query of this kind, and how many they have."""
        if setting.query == "cell":
            return {}
        return pseudobulk(in_space(self.legacy[self.parts == query_part], setting.labels), self.query).skipped

    def queries(self, setting: QuerySetting, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the cells that are averaged for each query, int [n, cells], and the queries' labels and names.

        Raises
        ------
        InputError
            If no condition has cells enough for a pseudo-bulk.
        """
        rows = np.flatnonzero(self.parts == part)
        labels = in_space(self.legacy, setting.labels)[rows]
        if setting.query == "cell":
            return rows[:, None], labels, self.cell_ids[rows]
        bulks = pseudobulk(labels, self.query)
        if not len(bulks.labels):
            raise InputError(
                f"query.cells_per_query: no condition has {self.query.cells_per_query} query cells for a pseudo-bulk; "
                "lower it"
            )
        numbered = np.array([f"{label}#{i}" for i, label in enumerate(bulks.labels)], dtype=object)
        return rows[bulks.groups], bulks.labels, numbered


def average(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return float64 [n_queries, d]: the mean over each query's rows, int [n_queries, cells], of float [n, d]."""
    total = np.zeros((len(groups), values.shape[1]))
    for rows in groups.T:
        total += values[rows]
    return total / groups.shape[1]
