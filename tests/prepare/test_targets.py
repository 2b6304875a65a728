"""A label spelt otherwise than its gene would escape the mask: it is refused, and nothing else is."""

import pandas as pd
import pytest

from reverse_perturbation.data.screen.genes import load_aliases
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary
from reverse_perturbation.prepare.source.labels import read_label
from reverse_perturbation.prepare.targets import check_targets, escaping, near_misses
from tests.end_to_end.pipeline import ROOT

SYMBOLS = default_vocabulary()
GENES = ["KLF1", "KLF13", "HLA-B", "NKX2-5", "CEBPA", "MT-TP", "C3orf72"]


@pytest.mark.parametrize(
    "target",
    [
        "Klf1", "klf1", "KLF1.1", "KLF1-2", "KLF1_3", "KLF-1", "KLF_1", "KLF 1", "K-LF1",
        "KLF1_sg1", "KLF1-sg2", "KLF1.sg3", "KLF1_sgRNA4", "KLF1_gRNA1", "KLF1_g2", "KLF1-guide3", "KLF1sg1",
        "sgKLF1", "sgRNA_KLF1", "sgKLF1-2", "sgKLF1_3", "gKLF1", "g1_KLF1", "guide2-KLF1",
        "KLF1_i", "KLF1_a", "KLF1_KO", "KLF1-kd", "KLF1_OE", "KLF1_P1", "KLF1_P1P2", "CRISPRi_KLF1_2", "KO_KLF1",
        "CRISPRa-KLF1", "KLF1sgRNA12",
        "Klf1_sg1", "sgKlf1.2", "klf-1-g3", "KLF1:1", "KLF1/2", "KLF1|sg1",
    ],
)  # fmt: skip
def test_a_target_that_is_almost_a_gene_is_found(target):
    assert near_misses([target], GENES, SYMBOLS) == {target: "KLF1"}


@pytest.mark.parametrize(
    "target", ["KLF1", "KLF2", "HLA-A", "HLA-C", "NKX2-1", "CEBPB", "MTTP", "SET", "SGK1", "GATA1", "ATF2"]
)
def test_a_gene_that_is_another_gene_is_not(target):
    assert near_misses([target], GENES, SYMBOLS) == {}


def test_synonyms_are_matched_by_the_mask_itself():
    alias, symbol = "C19orf26", load_aliases()["C19orf26"]
    assert near_misses([alias], [symbol], SYMBOLS) == {}
    assert near_misses([f"{alias}_sg1"], [symbol], SYMBOLS) == {f"{alias}_sg1": symbol}


def test_no_target_of_norman_resembles_another_gene():
    """All of 60,694 genes measured but the targets themselves."""
    labels = pd.read_csv(ROOT / "data" / "norman_conditions.csv")["condition"]
    targets = {gene for label in labels for gene in label.split("+")} - {"ctrl"}
    assert len(targets) > 100
    assert near_misses(targets, [gene for gene in SYMBOLS if gene not in targets], SYMBOLS) == {}


def test_ensembl_ids_differ_by_version_only():
    assert near_misses(["ENSG00000105610.5"], ["ENSG00000105610"], SYMBOLS) == {"ENSG00000105610.5": "ENSG00000105610"}
    assert near_misses(["ENSG00000105610"], ["ENSG00000105610.2"], SYMBOLS) == {"ENSG00000105610": "ENSG00000105610.2"}
    assert near_misses(["ENSG00000105610"], ["ENSG00000105611"], SYMBOLS) == {}


def test_the_error_names_file_target_and_gene():
    with pytest.raises(
        InputError, match=r"mine\.h5ad: .*'KLF1_sg1' is almost 'KLF1'.*Write each target exactly as its gene"
    ):
        check_targets("mine.h5ad", ["KLF1_sg1", "CEBPA"], GENES, SYMBOLS)
    many = [f"{gene}_sg{i}" for gene in ("KLF1", "KLF13", "HLA-B", "NKX2-5", "CEBPA", "C3orf72") for i in (1, 2)]
    with pytest.raises(InputError, match=r"and 2 more; the mask"):
        check_targets("mine.h5ad", many, GENES, SYMBOLS)


def test_symbols_against_ensembl_ids_are_refused():
    ids = [f"ENSG{i:011d}" for i in range(3)]
    with pytest.raises(InputError, match=r"name targets by symbols, .* are Ensembl ids; the mask would hide nothing"):
        check_targets("mine.h5ad", ["KLF1"], ids, SYMBOLS)
    with pytest.raises(InputError, match=r"name targets by Ensembl ids, .* are symbols"):
        check_targets("mine.h5ad", ids, GENES, SYMBOLS)
    check_targets("mine.h5ad", ids, [*ids, "ENSG00000999999"], SYMBOLS)


@pytest.mark.parametrize("target", ["TP53_sg1", "TP53-2", "sgTP53", "tp53", "TP53.1", "C19orf26_sg1"])
def test_a_guide_of_a_gene_that_is_not_measured_is_refused(target):
    with pytest.raises(InputError, match=rf"no gene symbols, but '{target}' is almost .*would be several conditions"):
        check_targets("mine.h5ad", [target, "KLF1"], GENES, SYMBOLS)


@pytest.mark.parametrize("target", ["KLF1_NegCtrl0", "KLF1_GATA1", "KLF1:GATA1", "TP53-GATA1", "TP53/KLF1"])
def test_several_genes_in_one_target_are_refused(target):
    with pytest.raises(InputError, match=rf"several genes: '{target}'; the mask would not hide them\. Write A\+B"):
        check_targets("mine.h5ad", [target, "KLF1"], GENES, SYMBOLS)


def test_targets_that_are_no_known_gene_are_returned():
    assert check_targets("mine.h5ad", ["KLF1", "GFP", "TP53", "C19orf26", "lacZ"], GENES, SYMBOLS) == ["GFP", "lacZ"]
    assert load_aliases()["NCL"] not in SYMBOLS
    assert check_targets("mine.h5ad", ["NCL"], GENES, SYMBOLS) == [], "the vocabulary has it by its other name"


def test_no_gene_is_read_as_anything_else():
    """Of all genes of the vocabulary and their synonyms those with letters alone, digits and hyphens."""
    names = [name for name in {*SYMBOLS, *load_aliases()} if name.replace("-", "").isalnum() and not name.isdigit()]
    read = {name: read_label(f"{name}+ctrl") for name in names}
    changed = {name for name in SYMBOLS if name in read and read[name] != (f"{name}+ctrl", "")}
    assert changed == {"CTRL"}, "the chymotrypsin-like gene has the name of control"
    old = {name for name in names if read[name] != (f"{name}+ctrl", "")} - changed
    assert len(old) < 30, "other names of genes, such as NT3 of NTF3"


def test_no_target_of_norman_is_read_as_anything_else():
    labels = pd.read_csv(ROOT / "data" / "norman_conditions.csv")["condition"]
    assert [read_label(label) for label in labels] == [(label, "") for label in labels]


@pytest.mark.parametrize(
    "gene",
    [
        "Klf1", "klf-1", "KLF1-1", "KLF1.2", "KLF1 ", "KLF1_dup", "GRCh38_KLF1", "hg19___KLF1", "KLF1_ENSG00000105610",
        "ENSG00000105610.5|KLF1", "KLF1 (ENSG00000105610)", "gene:KLF1", "GRCh38_Klf1.2", "EKLF.1",
    ],
)  # fmt: skip
def test_a_measured_gene_that_is_almost_a_target_is_refused(gene):
    assert escaping([gene, "GATA1"], ["KLF1"], SYMBOLS) == {gene: "KLF1"}
    with pytest.raises(InputError, match=r"its genes are no targets, but .* is almost 'KLF1'; the mask would not hide"):
        check_targets("mine.h5ad", ["KLF1"], [gene, "KLF1"], SYMBOLS)


@pytest.mark.parametrize("gene", ["KLF1", "KLF13", "KLF1-AS1", "KLF1-DT", "KLF1-IT2", "RP11-34P13.7", "KLF1P1"])
def test_a_measured_gene_beside_the_target_is_not(gene):
    assert escaping([gene], ["KLF1"], SYMBOLS) == {}


def test_no_gene_of_the_vocabulary_escapes_but_by_an_ensembl_id():
    targets = [name for name in SYMBOLS if "_" not in name]
    assert all("_ENSG" in name for name in escaping([*SYMBOLS, *load_aliases()], targets, SYMBOLS))


@pytest.mark.parametrize("target", ["KLF1ko", "hKLF1", "KLF1(1)", "KLF1#2", "KLF1_mut", "KLF1_+_12345.23-P1P2"])
def test_a_gene_within_a_target_is_refused(target):
    with pytest.raises(InputError, match="is almost 'KLF1'; the mask would not hide them"):
        check_targets("mine.h5ad", [target], GENES, SYMBOLS)


def test_a_word_for_control_within_a_target_is_refused():
    with pytest.raises(InputError, match="a word for control in them: 'non-targeting_human'; write ctrl for control"):
        check_targets("mine.h5ad", ["non-targeting_human", "KLF1"], GENES, SYMBOLS)
