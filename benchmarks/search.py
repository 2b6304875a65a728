"""Time the search in a library at the size of the whole Norman screen, and its memory, and print a table.

    OMP_NUM_THREADS=2 python benchmarks/search.py               # each search in a process of its own, ten minutes
    OMP_NUM_THREADS=2 python benchmarks/search.py --grid        # and the whole grid of one model, both label spaces

Random embeddings: exact search takes as long for them as for any others. Beside it stands a loop over queries with
scikit-learn's similarity, which has the first ``LOOPED`` queries and is scaled to all; it gives the same nearness.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import get_args

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from threadpoolctl import threadpool_info
from timing import in_turn, spread

from reverse_perturbation.comparison.grid import grid
from reverse_perturbation.config import load_params
from reverse_perturbation.report.markdown import markdown
from reverse_perturbation.retrieval.evaluate import Evaluator
from reverse_perturbation.retrieval.library import LibraryRanker
from reverse_perturbation.retrieval.predictions import Predictions
from reverse_perturbation.sections import LibraryKind, Similarity

PARAMS = load_params()
LOOPED = 50
Size = tuple[int, int, int, int]


def embeddings(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return float32 reference and query embeddings, and the reference cells' conditions."""
    n_reference, n_queries, width, conditions = size
    rng = np.random.default_rng(0)
    labels = np.array([f"G{i % conditions:03}+ctrl" for i in range(n_reference)], dtype=object)
    shape = [(n, width) for n in (n_reference, n_queries)]
    reference, queries = (rng.standard_normal(each, dtype=np.float32) for each in shape)
    return reference, labels, queries


def build(kind: LibraryKind, similarity: Similarity, size: Size) -> tuple[LibraryRanker, np.ndarray, float]:
    """Return a library, the queries for it, and the seconds that the library took."""
    reference, labels, queries = embeddings(size)
    start = time.perf_counter()
    ranker = LibraryRanker(PARAMS.library.model_copy(update={"kind": kind, "similarity": similarity}))
    ranker.fit(reference, labels)
    return ranker, queries, time.perf_counter() - start


def one(kind: LibraryKind, similarity: Similarity, size: Size, repeats: int) -> dict[str, object]:
    """Build a library and search it with every query, all at once and in a loop."""
    ranker, queries, built = build(kind, similarity, size)
    ranker.search(queries)
    most = peak()
    calls = {"search": lambda: ranker.search(queries)[0], "loop": lambda: looped(ranker, queries[:LOOPED])}
    seconds, found = in_turn(calls, repeats)
    assert np.allclose(found["loop"], found["search"][:LOOPED], atol=2e-2 if similarity == "euclidean" else 1e-5)
    seconds["loop"] = [each * len(queries) / LOOPED for each in seconds["loop"]]
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    row = {"library": kind, "similarity": similarity, "build, s": built, "search, s": middle["search"]}
    row |= {"range": spread(seconds["search"]), "a loop, s": middle["loop"], "range of it": spread(seconds["loop"])}
    return row | {"times faster": middle["loop"] / middle["search"]} | most


def looped(ranker: LibraryRanker, queries: np.ndarray) -> np.ndarray:
    """Return the nearness of each condition, found for one query after the other."""
    vectors = ranker._library[:, : queries.shape[1]]
    rows = []
    for query in queries:
        if ranker.config.similarity == "cosine":
            near = cosine_similarity(query[None], vectors)[0]
        else:
            near = -euclidean_distances((query - ranker._origin)[None], vectors)[0]
        rows.append(np.maximum.reduceat(near, ranker._starts))
    return np.array(rows)


def whole(size: Size) -> dict[str, object]:
    """Rank every query in every way for one model: cells and pseudo-bulks, all libraries, both label spaces."""
    reference, labels, queries = embeddings(size)
    truth = np.array([f"G{i % size[3]:03}+ctrl" for i in range(len(queries))], dtype=object)
    cell_ids = np.array([f"c{i}" for i in range(len(reference) + len(queries))], dtype=object)
    parts = np.repeat(np.array(["reference", "query"], dtype=object), [len(reference), len(queries)])
    legacy = np.concatenate([labels, truth])
    evaluator = Evaluator(cell_ids, legacy, parts, "canonical", PARAMS.library, PARAMS.query)
    embedding = np.concatenate([reference, queries])
    del reference, queries
    predictions = Predictions(cell_ids, None, None, embedding, None, np.zeros(size[2], dtype=np.float32))
    start = time.perf_counter()
    for _ in grid(evaluator, predictions, PARAMS.library_query.cells_per_query):
        pass
    taken = time.perf_counter() - start
    return {"library": "the whole grid", "similarity": "both", "build, s": None, "search, s": taken} | peak()


def peak() -> dict[str, object]:
    """Return the most memory this process has held, its embeddings and Python included."""
    return {"peak, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def main() -> None:
    """Run the searches one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=int, default=67152, help="reference cells")
    parser.add_argument("--queries", type=int, default=16651, help="query cells")
    parser.add_argument("--width", type=int, default=512, help="dimensions of the embedding")
    parser.add_argument("--conditions", type=int, default=282, help="conditions")
    parser.add_argument("--repeats", type=int, default=3, help="of a search and of its loop")
    parser.add_argument("--grid", action="store_true", help="the whole grid of one model as well")
    args = parser.parse_args()
    size = (args.reference, args.queries, args.width, args.conditions)
    jobs = [(one, (kind, s, size, args.repeats)) for kind in get_args(LibraryKind) for s in get_args(Similarity)]
    jobs += [(whole, (size,))] if args.grid else []
    rows = []
    for function, arguments in jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(function, arguments))
    threads = max((each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"), default=1)
    about = [f"{args.queries:,} queries", f"{args.reference:,} cells", f"{args.width} dimensions"]
    print(f"{', '.join(about)}, {threads} BLAS threads; medians of {args.repeats} in turn, the whole grid once\n")
    print(markdown(rows, decimals=1))


if __name__ == "__main__":
    main()
