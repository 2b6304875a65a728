"""Draw docs/figures: gap_by_screen.png from results files, pipeline.png and .svg from dvc.yaml.

Each picture's metadata holds the hash of what it shows, so a test can tell when one is out of date.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import matplotlib as mpl
from dvc.repo import Repo
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
# Report of a preset -> the screen in words.
SCREENS = {
    "papalexi": "Real cells: Papalexi et al. 2021, 24 conditions",
    "norman_subset": "Real cells: a subset of Norman 2019, 33 conditions",
}
SIMULATED = "Simulated cells: they say nothing about biology"
# Model -> colour, marker and words of its difference from the strongest baseline, which is chosen by cross-validation
# in the known cells of each screen and split; in the order drawn.
MODELS = {
    "scgpt": ("#444444", "s", "scGPT alone"),
    "scgpt_ensemble": ("#0072B2", "o", "scGPT alone, training seeds averaged"),
    "fusion_ensemble": ("#D55E00", "D", "scGPT fused with all baselines, training seeds averaged"),
}


@dataclass(frozen=True)
class Gap:
    """One point of the picture: a model minus the strongest baseline, with its 95 % interval."""

    screen: str
    part: str
    model: str
    gap: float
    low: float
    high: float


def read(path: str) -> dict[str, Any]:
    """Read a results file."""
    content: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return content


def gaps() -> list[Gap]:
    """Read every point of the picture from the results files."""
    points: list[Gap] = []
    for name, screen in SCREENS.items():
        for group, pooled in read(f"results/reports/{name}.json")["pooled"].items():
            number = len(pooled["splits"])
            splits = f"{number} splits together" if number > 1 else "one split"
            points += _points(screen, f"mask {group},\n{splits}", pooled["tests"], "strongest")
    comparison = read("metrics/comparison.json")
    best = comparison["strongest"]["baseline"]
    return [*points, *_points(SIMULATED, "default of make run", comparison["tests"], best)]


def _points(screen: str, part: str, tests: Mapping[str, Any], baseline: str) -> Iterator[Gap]:
    for model in MODELS:
        test = tests[model][baseline]
        yield Gap(screen, part, model, test["gap"], test["low"], test["high"])


def draw_gaps(points: Sequence[Gap]) -> Figure:
    """Draw the differences in mrr with their intervals, a line for each screen or split."""
    lines = list(dict.fromkeys((point.screen, point.part) for point in points))
    screens = list(dict.fromkeys(screen for screen, _ in lines))
    places = {line: i + 0.9 * (screens.index(line[0]) + 1) for i, line in enumerate(lines)}
    figure = Figure(figsize=(8.6, 4.9), layout="constrained")
    axes = figure.add_subplot()
    for screen in screens:
        of_screen = [y for (name, _), y in places.items() if name == screen]
        top, bottom = min(of_screen) - 1.1, max(of_screen) + 0.5
        simulated = screen == SIMULATED
        axes.axhspan(top, bottom, facecolor="0.93" if simulated else "white", hatch="//" if simulated else None,
                     edgecolor="0.86", linewidth=0, zorder=0)  # fmt: skip
        axes.text(
            0.012, top + 0.42, screen, transform=axes.get_yaxis_transform(), size=10.5, weight="bold", va="center"
        )
    axes.axvline(0, color="black", linewidth=1)
    for point in points:
        colour, marker, _ = MODELS[point.model]
        y = places[point.screen, point.part] + 0.26 * (list(MODELS).index(point.model) - 1)
        axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(point.gap, y, marker, color=colour, markersize=6)
    axes.set_yticks(list(places.values()), [part for _, part in places], size=9.5)
    axes.set_ylim(max(places.values()) + 0.5, min(places.values()) - 1.1)
    ends = [end for point in points for end in (point.low, point.high)]
    axes.set_xlim(min(-0.02, *ends) - 0.003, max(ends) + 0.003)
    for words, side in (("← baseline better  ", "right"), ("  scGPT better →", "left")):
        axes.text(0, 1.015, words, transform=axes.get_xaxis_transform(), ha=side, va="bottom", size=9.5)
    axes.set_xlabel("mrr (mean reciprocal rank) minus that of the strongest baseline, with 95 % interval over cells")
    axes.tick_params(left=False)
    axes.grid(axis="x", color="0.85", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles = [Line2D([], [], color=c, marker=m, linewidth=1.8, label=words) for c, m, words in MODELS.values()]
    figure.legend(handles=handles, loc="outside upper left", frameon=False, fontsize=9.5)
    return figure


# Stage -> column and row of its box, and a few words. A stage of dvc.yaml that is not here is an error.
BOXES: dict[str, tuple[float, float, str]] = {
    "prepare": (0, 2.0, "simulate cells,\nor read your\nfile"),
    "audit": (1, 3.0, "describe\nthe counts"),
    "vocab_map": (1, 2.0, "genes to\ntokens"),
    "split": (1, 1.0, "reference,\nvalidation,\nquery"),
    "pretrain": (2, 2.5, "scGPT: official\nor a small one"),
    "baseline": (2, 1.25, "logreg, LDA,\nMLP, PCA"),
    "probe": (2, 0.0, "look for leaks"),
    "finetune": (3, 2.5, "scGPT, end\nto end"),
    "embed": (4, 2.5, "predict\nevery cell"),
    "combine": (5, 1.9, "fusion, stack,\nensembles"),
    "evaluate_\nbaselines": (6, 1.0, "the same"),
    "evaluate": (6, 2.0, "rank conditions\nper query"),
    "library_\nquery": (6, 3.0, "retrieval by\nsimilarity"),
    "analysis": (7, 2.5, "calibration,\nerrors, ceilings"),
    "compare": (7, 1.4, "gaps, tests,\ntargets"),
    "report": (8, 1.9, "tables, plots,\nverdict"),
}
BANDS = {"data": (0, 1, "#4477AA"), "models": (2, 5, "#AA3377"), "evaluation": (6, 8, "#228833")}
LOOPS = {"name": "per baseline", "seed": "per seed"}
WIDTH, HEIGHT = 0.79, 0.78  # of a box, in columns and rows
LINE = 0.165  # in rows


def pipeline() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return each stage of dvc.yaml with what it is repeated for, and which feeds which, without shortcuts."""
    written = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    repeated = {name: "".join(LOOPS[key] for key in stage.get("matrix", {})) for name, stage in written.items()}
    with closing(Repo(str(ROOT))) as repo:
        edges = {(before.name.split("@")[0], after.name.split("@")[0]) for after, before in repo.index.graph.edges}

    def fed(name: str) -> set[str]:
        return set().union(*({after} | fed(after) for before, after in edges if before == name))

    shortcuts = {(a, b) for a, b in edges for c in fed(a) if c != b and b in fed(c)}
    return repeated, sorted(edges - shortcuts)


def draw_pipeline(repeated: Mapping[str, str], edges: Sequence[tuple[str, str]]) -> Figure:
    """Draw the stages as boxes, from left to right."""
    boxes = {name.replace("\n", ""): (x, y, name, words) for name, (x, y, words) in BOXES.items()}
    if missing := repeated.keys() ^ boxes.keys():
        raise SystemExit(f"scripts/make_figures.py: BOXES and dvc.yaml differ in {', '.join(sorted(missing))}")
    figure = Figure(figsize=(10.8, 4.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, 8.5), ylim=(-0.52, 4.1))
    axes.set_axis_off()
    for name, (first, last, colour) in BANDS.items():
        axes.add_patch(
            FancyBboxPatch(
                (first - 0.46, -0.46), last - first + 0.92, 4.5, boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=colour, alpha=0.10, edgecolor="none",
            )
        )  # fmt: skip
        axes.text((first + last) / 2, 3.86, name, ha="center", va="center", color=colour, size=12, weight="bold")
    for before, after in edges:
        axes.add_patch(_arrow(boxes[before][:2], boxes[after][:2]))
    for stage, (x, y, name, words) in boxes.items():
        colour = next(colour for first, last, colour in BANDS.values() if first <= x <= last)
        for offset in (0.045, 0.0) if repeated[stage] else (0.0,):
            axes.add_patch(
                FancyBboxPatch(
                    (x - WIDTH / 2 + offset, y - HEIGHT / 2 - offset), WIDTH, HEIGHT,
                    boxstyle="round,pad=0,rounding_size=0.06", facecolor="white", edgecolor=colour, linewidth=1.2,
                )
            )  # fmt: skip
        lines = [(line, {"size": 10, "weight": "bold"}) for line in name.split("\n")]
        lines += [(line, {"size": 8.2, "color": "0.25"}) for line in words.split("\n")]
        lines += [(repeated[stage], {"size": 7.8, "color": colour, "style": "italic"})] if repeated[stage] else []
        for i, (line, style) in enumerate(lines):
            axes.text(x, y + LINE * ((len(lines) - 1) / 2 - i), line, ha="center", va="center", **style)
    return figure


def _arrow(before: tuple[float, float], after: tuple[float, float]) -> FancyArrowPatch:
    """Return an arrow from one box to another: straight past other columns, then bent in the last gap."""
    x, y = before[0] + WIDTH / 2, before[1]
    to_x, to_y = after[0] - WIDTH / 2, after[1]
    bend = to_x - (1 - WIDTH)
    middle = (bend + to_x) / 2
    path = Path([(x, y), (bend, y), (middle, y), (middle, to_y), (to_x, to_y)], [1, 2, 4, 4, 4])
    return FancyArrowPatch(
        path=path, arrowstyle="-|>", mutation_scale=9, color="0.45", linewidth=1, shrinkA=0, shrinkB=0
    )


def digest(content: object) -> str:
    """Return the hash of what a picture shows."""
    return sha256(json.dumps(content, sort_keys=True, default=asdict).encode()).hexdigest()


def contents() -> dict[str, Any]:
    """Return what each picture shows, by its file name."""
    stages = pipeline()
    return {"gap_by_screen.png": gaps(), "pipeline.png": stages, "pipeline.svg": stages}


def main() -> None:
    """Draw all figures."""
    mpl.rcParams["svg.hashsalt"] = "reverse-perturbation"  # the same file each time
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, shown in contents().items():
        figure = draw_gaps(shown) if name.startswith("gap") else draw_pipeline(*shown)
        about = {"Description": digest(shown)} | ({"Date": None} if name.endswith(".svg") else {})
        figure.savefig(FIGURES / name, dpi=200, metadata=about)
        print(f"make_figures: {(FIGURES / name).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
