"""Import the package with two more metrics in its registry and print, as JSON, where each of them appears.

Run by test_registry.py in a process of its own. ``exact_hit@3`` is shown everywhere, ``exact_hit@4`` nowhere. The edit
is the one a newcomer makes: an entry of ``METRICS``.
"""

import json
import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
REGISTRY = "reverse_perturbation.metrics.registry"
ENTRIES = """    *_at("exact_hit", "among the first {k}", exact_hit, exact_hit_chance, {3: EVERYWHERE, 4: ()}),
)
REGISTRY = """


def import_with_new_metrics() -> None:
    """Import the registry from its source with the entries added, before anything else imports it."""
    spec = find_spec(REGISTRY)
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert source.count(")\nREGISTRY = ") == 1
    module = sys.modules[REGISTRY] = module_from_spec(spec)
    exec(compile(source.replace(")\nREGISTRY = ", ENTRIES), spec.origin, "exec"), module.__dict__)
    sys.modules["reverse_perturbation.metrics"].registry = module


import_with_new_metrics()

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402

from reverse_perturbation.analysis import cells_per_query, errors, probe  # noqa: E402
from reverse_perturbation.comparison import grid, verdict  # noqa: E402
from reverse_perturbation.comparison.compare import compare  # noqa: E402
from reverse_perturbation.metrics import registry  # noqa: E402
from reverse_perturbation.report import tables  # noqa: E402
from reverse_perturbation.stages import analysis, evaluate  # noqa: E402
from tests.analysis.test_cells_per_query import LEGACY, PARTS, always_a  # noqa: E402
from tests.comparison import test_compare as given  # noqa: E402
from tests.comparison.test_grid import CONFIG, screen  # noqa: E402
from tests.retrieval.test_evaluate import evaluator  # noqa: E402

ADDED = ("exact_hit@3", "exact_hit@4")


def places() -> dict[str, list[str]]:
    """Return for each place which of the added metrics it has."""
    results = given.scgpt()
    comparison = compare(given.trained(results), given.baselines(), given.CONFIG, given.TARGETS)
    comparison["provenance"] |= {"queries": 4, "conditions": 3}
    chance = registry.chance(given.LABELS, given.CONDITIONS)
    files = [
        {
            **each.metrics,
            "chance": chance,
            "provenance": {"model": "scgpt", "ranking": "-", **each.metrics["provenance"]},
        }
        for each in results
    ]
    scores = results[0].scores
    per_condition = errors.by_condition(scores.scores, scores.labels, scores.conditions, np.zeros((3, 3), dtype=int))
    rows = grid.table([list(grid.grid(*screen(), []))], CONFIG.library_query)
    labels = np.array(["A+ctrl", "B+ctrl"] * 20, dtype=object)
    probed = probe.fit_probe(sp.csr_matrix((40, 2), dtype=np.float32), labels, np.repeat(["reference", "query"], 20))
    content = {
        "metrics file": files[0],
        "row of a trained model": comparison["scgpt"],
        "row of a baseline": comparison["logreg"],
        "gap": comparison["gap"],
        "interval": comparison["interval"],
        "gaps to every baseline": comparison["gaps"]["pca"],
        "variation over seeds": comparison["scgpt"]["seeds"],
        "verdict": verdict.lines(comparison)[1].split(),
        "table of models": tables.models_table(files)[-1],
        "table of gaps": [row["metric"] for row in tables.gaps_table(comparison)],
        "grid": rows.columns,
        "intervals of the grid": [name.removesuffix("_low") for name in rows.columns if name.endswith("_low")],
        "rows of conditions": per_condition.columns,
        "numbers of cells": cells_per_query.by_size(evaluator(LEGACY, PARTS), [1], "by hand", always_a).columns,
        "probes": probed,
        "ceilings": analysis.twin_cap(given.LABELS, np.array(["reference", "query"] * 2)),
        "validation": evaluate.VALIDATED,
    }
    return {place: [name for name in ADDED if name in found] for place, found in content.items()}


if __name__ == "__main__":
    print(json.dumps(places()))
