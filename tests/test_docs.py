"""The docs are true: what they name exists, commands and examples work, numbers are those of the results files."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from os import environ
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reverse_perturbation.cli import COMMANDS
from reverse_perturbation.metrics.registry import Place
from reverse_perturbation.storage import read_json
from reverse_perturbation.studies import presets
from tests.end_to_end.pipeline import ROOT, inside, params, yaml

PACKAGE = ROOT / "src" / "reverse_perturbation"
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "models" / "README.md", ROOT / "data/raw/README.md"])
KEYS = yaml.load(ROOT / "params.yaml")
# Files of the examples in adding.md.
EXAMPLES = {
    "src/reverse_perturbation/models/baselines/centroid.py",
    "models/centroid/choices.csv",
    "experiments/lora_ranks.yaml",
}
EXAMPLES |= {"encoder/vocabulary.py", "encoder/checkpoint.py"}  # of any foundation model
# What looks like a key and is a function of the package scgpt or a file.
NO_KEYS = {
    "scgpt.tasks.embed_data",
    "scgpt.preprocess",
    "scgpt.tokenizer",
    "library_query.md",
    "library_query.csv",
    "pretrain.py",
}

every_document = pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks(name, language):
    text = (ROOT / "docs" / name).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def commands(document):
    """The words of each call of make and of reverse-perturbation in a document's blocks."""
    lines, language = [], None
    for line in document.read_text().replace("\\\n", " ").split("\n"):
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language == "" or (language is None and line.startswith("    ")):
            lines += [part.strip() for part in re.split(r" && |; ", line.partition(" # ")[0])]
    return [shlex.split(line) for line in lines if line.startswith(("make ", "reverse-perturbation "))]


# What the docs name


@every_document
def test_links_lead_somewhere(document):
    for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", document.read_text()):
        if not link.startswith("http"):
            target = document.parent / link if link else document
            assert target.exists(), link
            headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.M) if anchor else []
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in slugs, f"{link}#{anchor}"


@every_document
def test_files_named_in_the_docs_exist(document):
    names = re.findall(r"(?<![\w/:.-])((?:[\w.]+/)+\w+\.(?:py|sh|ya?ml|csv|toml))\b", document.read_text())
    for name in set(names) - EXAMPLES:
        if not name.startswith(("data/prepared", "data/split", "data/vocab")):  # made by the pipeline
            assert any((folder / name).exists() for folder in (ROOT, PACKAGE, document.parent)), name


@every_document
def test_settings_in_the_docs_are_keys(document):
    text = document.read_text()
    names = re.findall(r"-S '?\"?([\w.]+)=", text)
    if document.name != "review.md":  # it quotes a revision with other names
        names += [name for name in re.findall(r"`(\w+(?:\.\w+)+)(?:=[^`]*)?`", text) if name.split(".")[0] in KEYS]
    for name in set(names) - NO_KEYS:
        section = KEYS
        for part in name.split("."):
            assert part in section, name
            section = section[part]


@every_document
def test_commands_in_the_docs_are_known(document):
    made = (ROOT / "Makefile").read_text()
    for program, *arguments in commands(document):
        if program == "make":
            assert all(re.search(rf"^{word}:", made, flags=re.M) for word in arguments if "=" not in word), arguments
        else:
            assert arguments[0] in COMMANDS
    for name in re.findall(r"`reverse-perturbation (\w+)", document.read_text()):
        assert name in COMMANDS, name


@every_document
def test_presets_rows_and_settings_in_the_docs_are_accepted(document, tmp_path):
    example = blocks("adding.md", "yaml")[1]
    with inside(with_presets(tmp_path, lora_ranks=example)):
        for words in commands(document):
            if words[:2] != ["reverse-perturbation", "experiments"] or len(words) == 2:
                continue
            name, *rest = words[2:]
            at = [i for i, word in enumerate(rest) if word in ("-S", "-j")]
            settings = [rest[i + 1] for i in at if rest[i] == "-S"]
            options = {i for i, word in enumerate(rest) if word.startswith("--")}
            rows = [word for i, word in enumerate(rest) if i not in options and i not in at and i - 1 not in at]
            preset = presets.load_preset(name, presets.parse_overrides(settings))
            assert presets.select(preset.rows, rows, preset.file)
            assert presets.resolve(preset)


def with_presets(folder, **examples):
    """A folder with the presets of the repository and others."""
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, folder)
    for name, text in examples.items():
        (folder / "experiments" / f"{name}.yaml").write_text(text)
    return folder


def test_the_presets_in_the_table_are_as_it_says():
    rows = table("docs/experiments.md", "preset")
    names = [row["preset"].strip("`") for row in rows]
    with inside(ROOT):
        loaded = {name: presets.load_preset(name) for name in names}
    for name, row in zip(names, rows, strict=True):
        assert bool(row["writes"]) == bool(loaded[name].report), name
    assert f"{len(loaded['ablation'].rows)} variants" in dict(zip(names, rows, strict=True))["ablation"]["rows"]
    assert f"`ablation`: {len(loaded['ablation'].rows)} rows" in (ROOT / "docs" / "results.md").read_text()


def test_tables_of_experiments_have_names_and_columns():
    """DVC matches each pattern with a column's name from its beginning; without names no row can be told."""
    columns = {"Experiment", *paths(KEYS), *paths(read_json(ROOT / "metrics" / "comparison.json"))}
    for name in ("logreg_default", "pca"):
        file = f"metrics/baselines/{name}.json"
        columns |= {f"{file}:{path}" for path in paths(read_json(ROOT / file))}
    shown = [
        keep for page in DOCS for keep in re.findall(r"dvc exp show --drop '\.\*' --keep '([^']+)'", page.read_text())
    ]
    assert len(shown) >= 5
    for keep in shown:
        assert keep.startswith("Experiment|"), keep
        for pattern in re.split(r"\|(?![^(]*\))", keep):
            assert any(re.match(pattern, column) for column in columns), pattern


def paths(content, prefix=""):
    """The names DVC gives the leaves of a file."""
    for key, value in content.items():
        yield from paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]


# The examples of adding.md

RUN = """
import json, sys
from pathlib import Path
from tests.end_to_end.pipeline import run
run(Path(sys.argv[1]), json.loads(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """The pipeline run by a copy of the code with the example baseline and metric put where the docs say."""
    folder = tmp_path_factory.mktemp("newcomer")
    package = folder / "src" / "reverse_perturbation"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    baseline, metric = blocks("adding.md", "python")
    (package / "models" / "baselines" / "centroid.py").write_text(baseline)
    registry = package / "metrics" / "registry.py"
    before, end, after = registry.read_text().partition(")\nREGISTRY = ")
    registry.write_text(before + metric.rstrip() + ",\n" + end + after)
    content = params(models=["scgpt"], seeds=[0], **yaml.load(blocks("adding.md", "yaml")[0]))
    content["baselines"] = [*content["baselines"], "centroid"]
    work = folder / "work"
    work.mkdir()
    subprocess.run(
        [sys.executable, "-c", RUN, str(work), json.dumps(content)],
        check=True,
        cwd=ROOT,
        env=environ | {"PYTHONPATH": f"{folder / 'src'}:{ROOT}"},
    )
    return work


@pytest.mark.slow
def test_the_example_baseline_is_one_of_the_models(newcomer):
    metrics = read_json(newcomer / "metrics" / "baselines" / "centroid.json")
    assert metrics["mrr"] > 1.3 * metrics["chance"]["mrr"], "it learned something"
    assert len(pd.read_csv(newcomer / "models" / "centroid" / "choices.csv")) == 3
    comparison = read_json(newcomer / "metrics" / "comparison.json")
    assert comparison["centroid"]["mrr"] == metrics["mrr"]
    assert comparison["gaps"]["centroid"]["mrr"].keys() >= {"mean", "low", "high"}
    report = (newcomer / "results" / "reports" / "report.md").read_text()
    assert "\n| centroid |" in report
    assert "- `centroid`: Nearest centroid" in report
    grid = pd.read_csv(newcomer / "results" / "reports" / "library_query.csv")
    assert "centroid" in set(grid["model"])


@pytest.mark.slow
def test_the_example_metric_is_in_the_places_it_names(newcomer):
    metrics = read_json(newcomer / "metrics" / "models" / "scgpt-0.json")
    assert 0.5 < metrics["outranked"] < 1
    assert metrics["chance"]["outranked"] == 0.5
    comparison = read_json(newcomer / "metrics" / "comparison.json")
    for part in ("scgpt", "centroid", "gap", "interval"):
        assert "outranked" in comparison[part], part
    report = (newcomer / "results" / "reports" / "report.md").read_text()
    assert re.search(r"^\| model .*\| outranked ", report, flags=re.M)
    assert "\n| scgpt | outranked |" in report
    assert "outranked" in pd.read_csv(newcomer / "results" / "reports" / "library_query.csv")


def test_the_example_preset_is_accepted(tmp_path):
    with inside(with_presets(tmp_path, lora_ranks=blocks("adding.md", "yaml")[1])):
        rows = presets.resolve(presets.load_preset("lora_ranks"))
    assert rows["2"].experiment == "lora-ranks-2"
    assert {name: row.params.finetune.adaptation.lora.rank for name, row in rows.items()} == {"2": 2, "8": 8, "32": 32}
    assert rows["8"].params.data.source == "h5ad", "settings of its base"
    assert [row.targets for row in rows.values()] == [["compare"]] * 3


def test_the_docs_name_every_place_and_every_field():
    assert [row["place"].strip("`") for row in table("docs/adding.md", "place")] == list(get_args(Place))
    assert [row["key"].strip("`") for row in table("docs/adding.md", "key")] == list(presets.FIELDS)


# The numbers


def table(name, first, which=0):
    """Rows of the table of a document whose first column has a name; the n-th where there are several."""
    found = []
    for text in re.findall(r"(?:^\|.*\|\n)+", (ROOT / name).read_text(), flags=re.M):
        header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().split("\n")]
        if header[0] == first:
            found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found[which]


def numbers(text):
    return re.findall(r"(?<![\w.@])[-+]?\d[\d,]*(?:\.\d+)?(?:e-\d+)?", text)


def agree(text, values):
    """Every number of a text is the value at its place, rounded to the decimals it is printed with."""
    printed = numbers(text)
    assert len(printed) == len(values), f"{text!r}: {values}"
    for number, value in zip(printed, values, strict=True):
        mantissa, _, exponent = number.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        assert abs(float(number.replace(",", "")) - value) <= unit * 0.501, f"{number} in {text!r}, but {value}"


def results(name):
    return read_json(ROOT / "results" / "reports" / f"{name}.json")


def hits(row, model):
    return [row[model]["exact_hit@1"], row[model]["mrr"]]


MODELS = {
    "scGPT alone": "scgpt",
    "scGPT averaged": "scgpt_ensemble",
    "fusion averaged": "fusion_ensemble",
    "tuned logreg": "logreg",
}
MINUS = {f"{name} minus it, mrr (95 %)": model for name, model in MODELS.items() if model != "logreg"}
SCREENS = ("papalexi", "norman_subset")


def pooled(screen, group="all_targets"):
    return results(screen)["pooled"][group]


def gap(test):
    return [test["gap"], test["low"], test["high"]]


def agree_with_tests(line, tests, baseline):
    """The columns of a table that are gaps to the strongest baseline."""
    for column, model in MINUS.items():
        if column in line:
            agree(line[column], gap(tests[model][baseline]))


def test_real_cells_in_the_readme():
    groups = [(screen, group) for screen in SCREENS for group in results(screen)["pooled"]]
    shown = table("README.md", "screen, mask")
    assert [line["screen, mask"] for line in shown] == [", ".join(group) for group in groups]
    for line, (screen, group) in zip(shown, groups, strict=True):
        found = pooled(screen, group)
        for column, model in (MODELS | {"strongest baseline": "strongest"}).items():
            agree(line[column], hits(found["means"], model))
        agree_with_tests(line, found["tests"], "strongest")


def test_simulated_cells_in_the_readme():
    default, scale = table("README.md", "simulated screen")
    comparison, old = (
        read_json(ROOT / "metrics" / "comparison.json"),
        results("norman_scale")["rows"]["specification"],
    )
    best = comparison["strongest"]["baseline"]
    for column, model in MODELS.items():
        agree(default[column], hits(comparison, model))
        agree(scale[column], hits(old, model) if model in old else [])
    assert default["strongest baseline"].startswith(f"{best}, ")
    agree(default["strongest baseline"].removeprefix(best), hits(comparison, best))
    agree_with_tests(default, comparison["tests"], best)


def sentences():
    """Pattern of a sentence with its numbers in groups, and their values."""
    ablation = results("ablation")["rows"]
    lost = {row: ablation["default"]["mrr"] - ablation[row]["mrr"] for row in ("binned", "frozen")}
    interval = r"(\S+) in mrr \(95 % interval (\S+) to (\S+)\)"
    found = [
        ("docs/results.md", r"\(`binned`\) cost (\S+) in mrr", [lost["binned"]]),
        ("docs/results.md", r"a frozen one costs (\S+)\.\s", [lost["frozen"]]),
        ("docs/results.md", r"regression of that time has (\S+) in mrr", [results("ablation")["logreg"]["mrr"]]),
    ]
    for screen, words in (("papalexi", "Papalexi"), ("norman_subset", "Norman")):
        tests, about = pooled(screen)["tests"], next(iter(results(screen)["rows"].values()))
        n = about["conditions"]
        chance = [1 / n, float(np.mean(1 / np.arange(1, n + 1)))]
        found += [
            ("README.md", rf"{words}, scGPT alone: {interval}", gap(tests["scgpt"]["strongest"])),
            ("README.md", rf"{words}, fused: {interval}", gap(tests["fusion_ensemble"]["strongest"])),
            ("README.md", rf"`{screen}`: (\d+) conditions, (\S+) query cells a split; chance is (\S+) / (\S+)[ .;]",
             [n, about["queries"], *chance]),
            ("docs/results.md", rf"`{screen}`, splits together: (\d+), (\S+) queries of (\S+) cells",
             [len(pooled(screen)["splits"]), pooled(screen)["queries"], pooled(screen)["cells"]]),
        ]  # fmt: skip
    return found


def test_sentences_with_numbers():
    for name, pattern, values in sentences():
        text = " ".join((ROOT / name).read_text().split())
        (found,) = re.finditer(pattern, text)
        agree(" ".join(found.groups()), values)


@pytest.mark.parametrize(("which", "screen"), enumerate(SCREENS))
def test_results_of_real_cells(which, screen):
    found = pooled(screen)
    for line in table("docs/results.md", "model", which):
        model = line["model"].strip("`").replace("strongest baseline", "strongest")
        for metric in ("exact_hit@1", "mrr", "ndcg@5"):
            agree(line[metric], [found["means"][model][metric]])
        for column, baseline in (
            ("minus the strongest, mrr (95 %)", "strongest"),
            ("minus logreg, mrr (95 %)", "logreg"),
        ):
            if model not in found["tests"]:
                assert line[column] == ""
                continue
            test = found["tests"][model][baseline]
            agree(line[column], gap(test))
            assert line[column].endswith(f", {test['finding']}")
        agree(line["minus the stack, mrr (95 %)"], gap(found["stack"][model]) if model in found["stack"] else [])


def test_results_of_several_cells():
    grid = pd.read_csv(ROOT / "results" / "reports" / "norman_subset" / "library_query.csv")
    grid = grid[(grid["part"] == "query") & (grid["labels"] == "canonical")]
    names = {"scGPT alone": "scgpt"}
    for line in table("docs/results.md", "model, cells"):
        ranked, _, similarity = line["ranked by"].partition(" library, ")
        rows = grid[
            (grid["model"] == names.get(line["model, cells"], line["model, cells"])) & (grid["ranking"] == ranked)
        ]
        if similarity:
            rows = rows[(rows["embedding"] == "plain") & (rows["similarity"] == similarity.lower())]
        mrr = rows.set_index("cells_per_query")["mrr"]
        agree(f"{line['one cell']} {line['ten cells']}", [mrr[1], mrr[10]])


def test_results_of_the_ablation():
    rows = results("ablation")["rows"]
    for line in table("docs/results.md", "row"):
        agree(f"{line['exact_hit@1']} {line['mrr']}", hits(rows, line["row"]))


def value(row, column):
    return float(row[column].replace(",", ""))


def benchmark(name, *keys):
    """The table of a benchmark, its rows by the cells of some columns."""
    rows = table(f"results/benchmarks/{name}.md", keys[0])
    return {tuple(row[key] for key in keys) if keys[1:] else row[keys[0]]: row for row in rows}


def test_speed_of_single_steps():
    tokens = benchmark("tokens", "way")
    of_tokens = [
        [value(tokens[f"this project, {way}"], f"over {other}") for other in ("embed_data", "preprocess")]
        for way in ("binned", "binned_random", "log1p")
    ]
    large, small = benchmark("embed", "way"), benchmark("embed_small", "way")["this project, float32"]
    float32, bfloat16 = large["this project, float32"], large["this project, bfloat16"]
    steps = benchmark("finetune_step", "backbone, step", "loop")
    ours = {step.partition(", ")[0]: row for (step, loop), row in steps.items() if loop == "this project"}
    search = benchmark("search", "library", "similarity")
    faster = {kind: value(row, "times faster") for kind, row in search.items() if kind[0] != "the whole grid"}
    cells = [times for (library, _), times in faster.items() if library.startswith("raw_cell")]
    others = [times for (library, _), times in faster.items() if not library.startswith("raw_cell")]
    logreg, norman = benchmark("logreg", "fit"), benchmark("logreg_norman", "fit")
    theirs, lowest, level = (norman[f"C 0.01, {whose}"] for whose in ("theirs", "ours", "ours, as low as theirs"))
    expected = [
        of_tokens[0][:1],
        of_tokens[0][1:],
        of_tokens[1],
        of_tokens[2],
        [
            value(float32, "over upstream"),
            100 * value(float32, "share"),
            *(value(float32, column) for column in ("GFLOP a second", "machine's", "largest difference")),
        ],
        [value(bfloat16, "over upstream"), value(bfloat16, "smallest cosine")],
        [value(small, "over upstream"), 100 * value(small, "share"), value(small, "largest difference")],
        *(
            [value(row, "over plain"), value(row, "scores moved"), 100 * value(row, "share of the matrix rate")]
            for row in (ours["12 x 512"], ours["2 x 64"], ours["4 x 64"])
        ),
        None,  # dvc repro: in no file
        [min(cells), max(cells), min(others), max(others)],
        [
            value(logreg[f"C {c}, {kind}"], "times faster")
            for kind in ("ours, as low as theirs", "ours")
            for c in ("0.03", "1")
        ],
        [
            value(logreg["7 C, ours"], "times faster"),
            value(logreg["7 C, ours, from scratch"], "seconds") / value(logreg["7 C, ours"], "seconds"),
        ],
        [
            value(level, "times faster"),
            value(level, "iterations"),
            value(theirs, "objective above the lowest") - value(level, "objective above the lowest"),
            *(value(row, metric) for metric in ("exact_hit@1", "mrr") for row in (level, theirs)),
            value(lowest, "times faster"),
        ],
    ]
    for line, values in zip(table("docs/speed.md", "work"), expected, strict=True):
        if values is not None:
            agree(line["measured"], values)


def test_speed_of_stages():
    by_size = [row for row in table("results/benchmarks/stages.md", "stage") if row["cells"] == "91,205"]
    measured = {row["stage"]: row for row in by_size}
    for row in table("results/benchmarks/stages.md", "stage", 1):
        measured[f"{row['stage']}, {row['cells']} cells of {row['tokens']} tokens"] = row
    for line in table("docs/speed.md", "stage"):
        row = measured[line["stage"]]
        for column in ("seconds", "peak, GB", "GFLOP", "GB in and out"):
            agree(line[column], [] if line[column] == "-" else [value(row, column)])
        agree(line["limit, s"], [value(row, "limit, s")])


def test_speed_in_sentences():
    protocol, speed = (" ".join((ROOT / "docs" / name).read_text().split()) for name in ("protocol.md", "speed.md"))
    search = benchmark("search", "library", "similarity")
    grid = search["the whole grid", "both"]
    shares = [
        {row["operation"].strip("`"): 100 * value(row, "share") for row in table(f"results/benchmarks/{name}.md", *at)}
        for name, *at in (("embed", "operation"), ("embed", "operation", 1), ("embed_small", "operation"))
    ]
    attention = "aten::_scaled_dot_product_flash_attention_for_cpu"
    bfloat16 = benchmark("embed", "way")["this project, bfloat16"]
    norman = benchmark("logreg_norman", "fit")
    rates = re.search(
        r"(\d+) GFLOP/s in matrix products 64 wide, (\d+) GFLOP/s in matrix products 512 wide, (\d+) GB/s",
        (ROOT / "results" / "benchmarks" / "stages.md").read_text(),
    )
    narrow, wide, copy = map(int, rates.groups())
    for text, pattern, values in (
        (
            protocol,
            r"takes (\S+) s on one thread by nearest cell and (\S+) s by vote",
            [value(search[kind, "cosine"], "search, s") for kind in ("raw_cell", "raw_cell_vote")],
        ),
        (
            protocol,
            r"label spaces takes (\S+) minutes and (\S+) GB",
            [value(grid, "search, s") / 60, value(grid, "peak, GB")],
        ),
        (speed, r"in that run (\d+) GFLOP/s, (\d+) at width 64, and (\d+) GB/s", [wide, narrow, copy]),
        (speed, r"on one thread at the (\d+) GFLOP/s above", [wide]),
        (
            speed,
            r"It needs (\d+) iterations at C 0.01, where scikit-learn has not converged after (\d+)",
            [value(norman[f"C 0.01, {whose}"], "iterations") for whose in ("ours", "theirs")],
        ),
        (speed, r"\(`addmm`\) take (\d+) %, attention (\d+) %", [shares[0]["aten::addmm"], shares[0][attention]]),
        (speed, r"bfloat16\.\*\* Attention takes (\d+) %", [shares[1][attention]]),
        (speed, r"Hence (\d+) % of the bfloat16 matrix rate", [100 * value(bfloat16, "share")]),
        (speed, r"four heads of 16, takes (\d+) %", [shares[2][attention]]),
    ):
        (found,) = re.finditer(pattern, text)
        agree(" ".join(found.groups()), values)


# The figures


def test_the_figures_show_the_results_and_the_pipeline_of_today():
    """The hash of what each shows is in its metadata; `python scripts/make_figures.py` draws them again."""
    spec = spec_from_file_location("make_figures", ROOT / "scripts" / "make_figures.py")
    assert spec is not None
    script = sys.modules["make_figures"] = module_from_spec(spec)
    spec.loader.exec_module(script)
    shown = script.contents()
    for name, content in shown.items():
        path = ROOT / "docs" / "figures" / name
        about = path.read_text() if path.suffix == ".svg" else Image.open(path).text["Description"]
        assert script.digest(content) in about, f"{name} is out of date: run python scripts/make_figures.py"
    readme = (ROOT / "README.md").read_text()
    assert all(f"docs/figures/{name}" in readme for name in shown if name.endswith(".png"))
