"""One evaluator for every model: outputs in, scores and metrics out; it does not know which model it judges."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import LABEL_SPACES, LabelSpace, in_space
from reverse_perturbation.config import Library, LibraryKind, Query, QueryKind, Ranking
from reverse_perturbation.errors import InputError
from reverse_perturbation.retrieval import metrics
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.retrieval.outputs import Outputs
from reverse_perturbation.retrieval.query import pseudobulk
from reverse_perturbation.retrieval.rank import translate
from reverse_perturbation.storage import write_atomically

LIBRARIES: tuple[LibraryKind, ...] = ("bootstrap", "mean", "raw_cell")
QUERIES: tuple[QueryKind, ...] = ("cell", "pseudobulk")


@dataclass(frozen=True)
class Setting:
    """How queries are ranked: by ``classifier`` or a library, which queries, in which label space."""

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
        float32 [n_queries, n_conditions], higher is better.
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
                scores=self.scores.astype(np.float32),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                file["queries"].astype(object),
                file["labels"].astype(object),
                file["conditions"].astype(object),
                file["scores"],
            )


@dataclass(frozen=True)
class Evaluator:
    """Scores a model's outputs on the cells of one part, with libraries of others.

    Attributes
    ----------
    cells
        Ids, in the order of the outputs.
    legacy
        Legacy label of each cell.
    parts
        Part of each cell.
    fitted_space
        Label space the classifiers were fitted in.
    library, query
        Sections of params.yaml.
    """

    cells: np.ndarray
    legacy: np.ndarray
    parts: np.ndarray
    fitted_space: LabelSpace
    library: Library
    query: Query

    def settings(self, outputs: Outputs) -> Iterator[Setting]:
        """List every setting these outputs allow."""
        rankings = ([] if outputs.log_proba is None else ["classifier"]) + (
            [] if outputs.embedding is None else list(LIBRARIES)
        )
        for labels in LABEL_SPACES:
            for ranking in rankings:
                for query in QUERIES:
                    yield Setting(ranking, query, labels)

    def headline(self, outputs: Outputs, ranking: Ranking) -> Setting:
        """Choose the setting of the headline: as asked for, where the model can."""
        classify = outputs.log_proba is not None and (ranking == "classifier" or outputs.embedding is None)
        return Setting("classifier" if classify else self.library.kind, self.query.kind, self.fitted_space)

    def scores(
        self,
        outputs: Outputs,
        setting: Setting,
        library_parts: tuple[str, ...] = ("reference", "validation"),
        query_part: str = "query",
    ) -> Scores:
        """Score the queries of a part.

        Raises
        ------
        InputError
            If the outputs are not of these cells, or no condition has cells enough for a pseudo-bulk.
        """
        if list(outputs.cells) != list(self.cells):
            raise InputError("outputs are not of the cells of this split, in its order; run `dvc repro`")
        in_query = np.flatnonzero(self.parts == query_part)
        in_library = np.flatnonzero(np.isin(self.parts, library_parts))
        labels = in_space(self.legacy, setting.labels)
        if setting.ranking == "classifier":
            assert outputs.log_proba is not None
            assert outputs.conditions is not None
            counts = dict(zip(*np.unique(self.legacy[in_library].astype(str), return_counts=True), strict=True))
            rows, conditions = outputs.log_proba[in_query], np.asarray(outputs.conditions, dtype=object)
            if setting.labels != self.fitted_space:
                rows, conditions = translate(rows, conditions, counts, setting.labels)
            rows, truth, names = self._queries(rows, labels[in_query], self.cells[in_query], setting.query)
            return Scores(names, truth, conditions, rows)
        assert outputs.embedding is not None
        ranker = LibraryRanker(
            setting.ranking,  # type: ignore[arg-type]
            prototypes=self.library.prototypes,
            cells_per_prototype=self.library.cells_per_prototype,
            seed=self.library.seed,
        ).fit(outputs.embedding[in_library], labels[in_library])
        rows, truth, names = self._queries(
            outputs.embedding[in_query], labels[in_query], self.cells[in_query], setting.query
        )
        return Scores(names, truth, ranker.conditions, ranker.scores(rows))

    def _queries(
        self, rows: np.ndarray, labels: np.ndarray, names: np.ndarray, kind: QueryKind
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is ranked, its labels and its names: the cells as they are, or averages of several."""
        if kind == "cell":
            return rows, labels, names
        bulks = pseudobulk(labels, self.query)
        if not len(bulks.labels):
            raise InputError(
                f"query.cells: no condition has {self.query.cells} query cells for a pseudo-bulk; lower it"
            )
        numbered = np.array([f"{label}#{i}" for i, label in enumerate(bulks.labels)], dtype=object)
        return rows[bulks.groups].mean(axis=1), bulks.labels, numbered


def grid(evaluator: Evaluator, outputs: Outputs) -> pd.DataFrame:
    """Evaluate every setting on the query cells: one row each, with its metrics."""
    rows = []
    for setting in evaluator.settings(outputs):
        try:
            scores = evaluator.scores(outputs, setting)
        except InputError as error:
            if "query.cells" not in str(error):
                raise
            continue
        found = metrics.compute(scores.scores, scores.labels, scores.conditions)
        size = {"queries": len(scores.labels), "conditions": len(scores.conditions)}
        rows.append({"ranking": setting.ranking, "query": setting.query, "labels": setting.labels} | size | found)
    return pd.DataFrame(rows)
