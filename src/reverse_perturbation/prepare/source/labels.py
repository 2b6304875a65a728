"""What the labels of a user's file name: control, no target at all, or genes; :func:`read_label` has the one rule."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from reverse_perturbation.conditions import CONTROL, genes_of
from reverse_perturbation.data.screen.genes import resolve
from reverse_perturbation.errors import InputError, listed

# Words for control and for "no target assigned", without case and separators.
IGNORED = re.compile(r"[-_.+|,;:&\s]+")
CONTROLS = re.compile(
    r"(?:(?:sg(?:rna)?|grna)?"
    r"(?:ctrls?|controls?|ctl|ntc?|non?target(?:ing|s)?|neg(?:ative)?(?:ctrl|control)s?|safe(?:target(?:ing|s)?|harbou?r)"
    r"|scrambled?|aavs1|intergenic|(?:no|one)(?:nongene)?site|nongene|unperturbed)"
    r"(?:(?:sg(?:rna)?|grna|guide|g)?\d+|sgrnas?|grnas?|guides?)?)+"
)
UNASSIGNED = re.compile(
    r"|unassigned|notassigned|undetermined|unknown|ambiguous|negative|multiplets?|multiple|doublets?|none|nan|n/?a|<na>|null"
    r"|empty|no(?:guide|s?grna)"
)
JOINED = re.compile(r"[,;|&]")
GUIDE = re.compile(r"(?:sg(?:RNA)?|gRNA|guide)\d*|g\d+|P1|P2|P1P2|[^A-Za-z]*")  # a part that is none of a gene's name
COMPLAINTS = {
    "unassigned": "No target is assigned: {}; drop these cells",
    "joined": "Genes are joined by another sign than {sign}: {}; write A{sign}B",
    "guide": "A part is no gene: {}; write the gene alone, not its guide or a number",
}
FLAGS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


@dataclass(frozen=True)
class Layout:
    """How a kind of file writes its labels."""

    column: str  # of obs
    sign: str  # between genes
    forms: str
    control: str  # the plain word


GEARS = Layout("condition", "+", "A+ctrl, ctrl+A, A+B or ctrl", CONTROL)
SCPERTURB = Layout("perturbation", "_", "A, A_B or control", "control")


def read_label(text: str, sign: str = "+") -> tuple[str, str]:
    """Read a label of the user's file.

    Case and separators (``-_.+|,;:&`` and spaces) do not matter for the words of this rule:

    - *control*: ctrl, control, NT, NTC, non-targeting, no-target, negative control, safe-targeting, safe harbour,
      scramble, AAVS1, intergenic, non-gene, no-site, one-site, unperturbed; also with a number (``NT_1``, ``NTg2``),
      with the prefix of a guide (``sgNT``) or several joined (``NegCtrl0_NegCtrl1``). Such a label is ``ctrl``, and so
      is such a part beside a gene, as in ``KLF1+control``;
    - *no target assigned*: unassigned, unknown, ambiguous, multiplet, doublet, none, nan, NA, negative, empty text and
      the like, alone or as a part: refused, because such cells are neither perturbed nor control;
    - genes joined by ``,``, ``;``, ``|`` or ``&``: refused, because guides and alternatives are joined like that too;
    - a part that is only a guide or a number, as in ``KLF1_sg1`` and ``KLF1_2``: refused.

    Parameters
    ----------
    text
        As the file has it.
    sign
        Between genes: ``+``, or ``_`` in scPerturb's labels, where ``A`` stands for ``A+ctrl``.

    Returns
    -------
    tuple of str
        The label with ``+`` between its parts, and a key of ``COMPLAINTS`` if it is refused, else empty text.
    """
    if is_control(text):
        return CONTROL, ""
    if _is_unassigned(text):
        return text, "unassigned"
    parts = [CONTROL if is_control(part) else part for part in _parts(text, sign)]
    for part in filter(None, parts):
        if _is_unassigned(part):
            return text, "unassigned"
        if JOINED.search(part):
            return text, "joined"
        if GUIDE.fullmatch(part):
            return text, "guide"
    return "+".join([*parts, CONTROL] if sign == "_" and len(parts) == 1 else parts), ""


def is_control(text: str) -> bool:
    """Return whether a label, or a part of one, is a word for control."""
    return CONTROLS.fullmatch(IGNORED.sub("", text).casefold()) is not None


def _is_unassigned(text: str) -> bool:
    return UNASSIGNED.fullmatch(IGNORED.sub("", text).casefold()) is not None


def _parts(text: str, sign: str) -> list[str]:
    return re.split(r"[_+]", text) if sign == "_" else text.split("+")


def checked_labels(
    path: Path, obs: pd.DataFrame, layout: Layout, genes: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Read the labels of all cells.

    Parameters
    ----------
    path
        Names the file in an error.
    obs
        With the column of the layout, for GEARS's also ``control``, for scPerturb's optionally ``nperts``.
    layout
        ``GEARS`` or ``SCPERTURB``.
    genes
        Measured genes.

    Returns
    -------
    tuple
        ``condition`` and ``control`` of each cell, and how labels were read that are written otherwise.

    Raises
    ------
    InputError
        Listing the labels that are no perturbation, could mean two things or contradict another column.
    """
    column = obs[layout.column]
    refuse_empty(path, column)
    _refuse_unused(path, column, layout)
    texts = column.astype(str)
    cells = texts.value_counts()
    read = {text: read_label(text, layout.sign) for text in cells.index}
    _refuse_complaints(path, cells, read, layout)
    conditions = {text: label for text, (label, _) in read.items()}
    _refuse_other_forms(path, texts, conditions, layout)
    labels = texts.map(conditions).to_numpy(dtype=object)
    control = labels == CONTROL
    if layout is GEARS:
        control = _checked_control(path, obs["control"], labels, texts.to_numpy(dtype=object), genes)
    _refuse_ambiguous(path, cells, layout, genes, set(texts[control]) if layout is GEARS else set())
    if "nperts" in obs:
        _refuse_other_numbers(path, obs["nperts"], texts, conditions, layout)
    if not control.any():
        raise InputError(
            f'{path}: obs["{layout.column}"] names no control cells: no label is {layout.control!r} or another word '
            f"for control; the commonest are {_with_cells(cells, list(cells.index))}. Keep the control cells in the "
            f"file, labelled {layout.control!r}"
        )
    if control.all():
        raise InputError(f"{path}: obs holds only control cells; keep the perturbed cells in the file")
    frame = pd.DataFrame({"condition": labels, "control": control}, index=obs.index.astype(str))
    return frame, _read_as(conditions)


def _read_as(conditions: Mapping[str, str]) -> list[str]:
    """Return how labels were read that were changed: those written in scPerturb's way once for all, others each."""
    changed = {text: label for text, label in sorted(conditions.items()) if text != label}
    singles = [text for text, label in changed.items() if label == f"{text}+{CONTROL}"]
    doubles = [text for text, label in changed.items() if label == text.replace("_", "+")]
    plain = [
        f"{texts[0]} as {changed[texts[0]]} (labels like it: {len(texts)})" for texts in (singles, doubles) if texts
    ]
    others = [text for text in changed if text != SCPERTURB.control and text not in {*singles, *doubles}]
    return plain + [f"{text} as {changed[text]}" for text in others]


def refuse_empty(path: Path, column: pd.Series) -> None:
    """Raise an error if a cell has no value."""
    if column.isna().any():
        cell = column.index[column.isna()][0]
        raise InputError(
            f'{path}: obs["{column.name}"] is empty for {int(column.isna().sum()):,} cells, first {cell!r}; '
            "fill it in or drop the cells"
        )


def _refuse_unused(path: Path, column: pd.Series, layout: Layout) -> None:
    if layout is GEARS and isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column)
        empty = [str(name) for name in column.cat.categories if name not in present]
        if empty:
            raise InputError(
                f'{path}: obs["condition"] lists {len(empty)} conditions without a cell: {listed(empty)}; call '
                'adata.obs["condition"].cat.remove_unused_categories() and assign the result'
            )


def _with_cells(cells: pd.Series, texts: Sequence[str]) -> str:
    return listed([f"{text!r} (cells: {cells[text]:,})" for text in texts])


def _refuse_complaints(path: Path, cells: pd.Series, read: Mapping[str, tuple[str, str]], layout: Layout) -> None:
    """Raise an error that lists the labels that are neither a perturbation nor control, by what is wrong with them."""
    said = []
    for kind, message in COMPLAINTS.items():
        if found := sorted(text for text, (_, complaint) in read.items() if complaint == kind):
            said.append(message.format(_with_cells(cells, found), sign=layout.sign))
    if said:
        what = "holds labels that are neither a perturbation nor control"
        raise InputError(f'{path}: obs["{layout.column}"] {what}. {". ".join(said)}')


def _refuse_other_forms(path: Path, texts: pd.Series, conditions: Mapping[str, str], layout: Layout) -> None:
    wrong = {
        text: complaint for text, label in conditions.items() if (complaint := _form_complaint(label, layout.sign))
    }
    if wrong:
        first = next(text for text in texts if text in wrong)
        others = [repr(text) for text in sorted(wrong) if text != first]
        raise InputError(
            f'{path}: obs["{layout.column}"] is {first!r} for cell {texts.index[texts == first][0]!r}: {wrong[first]}; '
            f"write {layout.forms}" + (f". Such labels are also {listed(others)}" if others else "")
        )


def _form_complaint(label: str, sign: str) -> str:
    """Return what is wrong with a label; nothing if it is one of the four forms."""
    try:
        genes = genes_of(label)
    except ValueError:
        return "a part of it is empty"
    parts = label.split("+")
    if any(part != part.strip() for part in parts):
        return "it holds spaces"
    if not label.isprintable():
        return "it holds characters that cannot be seen"
    if label == CONTROL:
        return ""
    if len(parts) != 2:
        advice = "; a gene whose own name holds _ needs another name" if sign == "_" else ""
        return f"it has {len(parts)} part{'s' if len(parts) > 1 else ''} instead of two{advice}"
    wanted = 1 if CONTROL in parts else 2
    return "" if len(genes) == wanted else "both of its parts are the same"


def _refuse_ambiguous(path: Path, cells: pd.Series, layout: Layout, genes: Sequence[str], controls: set[str]) -> None:
    """Refuse words for control that are a measured gene too, and measured genes whose names read like two genes.

    A word means control where ``obs["control"]`` says so, and where it is one of a series, as NT3 is beside NT2.
    """
    measured = {resolve(gene) for gene in genes}
    parts = {part: text for text in cells.index for part in (text, *_parts(text, layout.sign)) if is_control(part)}
    plain = {_stem(part) for part in parts if resolve(part) not in measured and part != _stem(part)}
    words = [
        text
        for part, text in parts.items()
        if resolve(part) in measured and part not in controls and not (part != _stem(part) and _stem(part) in plain)
    ]
    if words:
        raise InputError(
            f'{path}: obs["{layout.column}"] holds labels that are words for control and names of measured genes: '
            f"{_with_cells(cells, sorted(set(words)))}; write {layout.control!r} for control, and a gene by another of "
            "its symbols"
        )
    signed = [gene for gene in map(str, genes) if layout.sign in gene]
    edge = re.compile(
        "|".join(rf"(?:^|{re.escape(layout.sign)}){re.escape(gene)}(?:$|{re.escape(layout.sign)})" for gene in signed)
    )
    if signed and (wrong := [text for text in cells.index if edge.search(text)]):
        raise InputError(
            f'{path}: obs["{layout.column}"] holds labels that are two genes or one measured gene with '
            f"{layout.sign!r} in its name: {_with_cells(cells, sorted(wrong))}; rename that gene in var and in the "
            "labels"
        )


def _stem(word: str) -> str:
    return re.sub(r"\d+$", "", word)


def _refuse_other_numbers(
    path: Path, column: pd.Series, texts: pd.Series, conditions: Mapping[str, str], layout: Layout
) -> None:
    """Compare scPerturb's number of perturbed genes with the parts of the labels, words for control counted or not."""
    numbers = pd.to_numeric(column, errors="coerce")
    parts = texts.map({text: len(_parts(text, layout.sign)) for text in conditions})
    genes = texts.map({text: len(genes_of(label)) for text, label in conditions.items()})
    wrong = numbers.notna() & (genes > 0) & (numbers != genes) & ((numbers != parts) | (genes == parts))
    if wrong.any():
        pairs = sorted({(text, f"{number:g}") for text, number in zip(texts[wrong], numbers[wrong], strict=True)})
        raise InputError(
            f'{path}: obs["nperts"] is not the number of genes of obs["{layout.column}"] for {int(wrong.sum()):,} '
            f"cells: {listed([f'{number} for {text!r}' for text, number in pairs])}; a gene whose own name holds "
            f"{layout.sign!r} needs another name"
        )


def _checked_control(
    path: Path, column: pd.Series, labels: np.ndarray, texts: np.ndarray, genes: Sequence[str]
) -> np.ndarray:
    values = column.astype(str).str.lower().map(FLAGS)
    if values.isna().any():
        cell = column.index[values.isna()][0]
        raise InputError(f'{path}: obs["control"] is {column.loc[cell]!r} for cell {cell!r}; it must be 0 or 1')
    control: np.ndarray = values.to_numpy(dtype=bool)
    wrong = np.flatnonzero(control != (labels == CONTROL))
    if not len(wrong):
        return control
    i = wrong[0]
    words = sorted({str(text) for text in texts[wrong][labels[wrong] == CONTROL]} - {CONTROL})
    if words:
        measured = {resolve(gene) for gene in genes}
        also_genes = [word for word in words if resolve(word) in measured]
        gene = (
            f". Names of measured genes too: {listed(also_genes)}; write another symbol for a gene"
            if also_genes
            else ""
        )
        raise InputError(
            f'{path}: obs["control"] is 0 for cell {column.index[i]!r} ({len(wrong):,} such cells), but these '
            f"conditions are control: {listed([repr(word) for word in words])}; set control to 1 for their cells, or "
            f"drop them{gene}"
        )
    raise InputError(
        f'{path}: obs["control"] is {int(control[i])} for cell {column.index[i]!r}, but its condition is '
        f"{texts[i]!r} ({len(wrong):,} such cells); control must be 1 where the condition is {CONTROL!r} "
        "and 0 elsewhere"
    )
