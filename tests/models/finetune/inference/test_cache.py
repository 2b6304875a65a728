"""What is kept is what would be computed, is computed once, and is found again only where it belongs."""

import dataclasses

import numpy as np
import pytest
import torch

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.embed import embed_cells
from reverse_perturbation.models.encoder.batches import INFERENCE_TOKENS
from reverse_perturbation.models.finetune.inference import cache
from reverse_perturbation.models.finetune.inference.cache import CachedTokens, cached
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.train import fit
from reverse_perturbation.sections import Cache
from tests.models.conftest import CELL_IDS, CONDITIONS, CPU, ONE, build, finetune_config

# Mode, readout, and how wide a cell's row (readouts) or a token's (states) is.
KINDS = {
    "head, no genes": ({"adaptation__mode": "head", "head__readout": ["cls", "mean"]}, 32),
    "head, genes": ({"adaptation__mode": "head"}, 16),
    "last_n": ({"adaptation__mode": "last_n", "adaptation__last_layers": 1}, 16),
    "last_n, no genes": (
        {"adaptation__mode": "last_n", "adaptation__last_layers": 2, "head__readout": ["cls"]},
        16,
    ),
}


def config_of(kind="head, genes", dtype="float32", limit_gb=1.0, **changes):
    settings = KINDS[kind][0] | {"augmentation__mixing": 1, "cache": Cache(dtype=dtype, limit_gb=limit_gb)}
    return finetune_config(**settings | changes)


def keep(model, tokens, folder, checkpoint_sha256="c"):
    return cached(model, tokens, folder=folder, checkpoint_sha256=checkpoint_sha256, device=CPU)


def folders(path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float16", 2e-3)])
def test_training_takes_the_same_course_with_and_without(checkpoint, data, tmp_path, kind, dtype, within):
    """The cells meet in batches of 20 here and of 256 in the cache, so they are padded differently.

    With float32 the metrics are equal to the last digit. Losses and scores are equal to rounding (3e-7), not always to
    the last bit: in which order a matrix product adds up depends on the shape of the batch.
    """
    config = config_of(kind, dtype, adaptation__dropout=0.2, head__dropout=0.2, sampler__batch_size=20)
    found = []
    for folder in (None, tmp_path):
        model = build(checkpoint, config)
        cells = data.tokens if folder is None else keep(model, data.tokens, folder)
        history = fit(model, dataclasses.replace(data, tokens=cells), config, seed=0, epochs=3, accelerator=ONE)
        found.append((history, embed_cells(model, cells, CELL_IDS, CONDITIONS, ONE)))
    (plain, without), (kept, beside) = found
    assert isinstance(cells, CachedTokens)
    for a, b in zip(plain, kept, strict=True):
        exact = 0 if dtype == "float32" else within
        assert (a.exact_hit_at_1, a.mrr) == pytest.approx((b.exact_hit_at_1, b.mrr), abs=exact, rel=0)
        assert (a.train_loss, a.validation_loss) == pytest.approx((b.train_loss, b.validation_loss), abs=within)
    assert beside.log_proba == pytest.approx(without.log_proba, abs=within)
    assert beside.embedding == pytest.approx(without.embedding, abs=within)
    assert beside.log_proba.std() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_brings_what_would_be_computed(checkpoint, tokens, tmp_path, kind):
    """Cells in any order, twice, and padded by a cell longer than they are."""
    model = build(checkpoint, config_of(kind)).eval()
    cells = keep(model, tokens, tmp_path)
    lengths = tokens.lengths
    for rows in ([5], [9, 3, 9], [int(lengths.argmin()), int(lengths.argmax())], list(range(239, -1, -1))):
        batch = cells.batch(np.array(rows))
        with torch.no_grad():
            wanted = model.frozen(tokens.batch(np.array(rows)))
        real = slice(None) if not model.frozen_states_per_token else ~batch.padding
        assert batch.frozen.dtype == torch.float32
        assert batch.frozen.shape == wanted.shape
        assert (batch.frozen[real] - wanted[real]).abs().max() <= 1e-5


def test_frozen_work_is_done_once_for_each_cell(checkpoint, data, tmp_path, monkeypatch):
    seen = []
    frozen = EncoderClassifier.frozen
    monkeypatch.setattr(EncoderClassifier, "frozen", lambda self, b: seen.append(len(b.ids)) or frozen(self, b))
    config = config_of("last_n")
    for seed in (1, 2):  # two training seeds, as two stages would
        model = build(checkpoint, config, seed)
        cells = keep(model, data.tokens, tmp_path)
        mine = dataclasses.replace(data, tokens=cells)
        fit(model, mine, config, seed=seed, epochs=3, accelerator=ONE)
        fit(build(checkpoint, config, seed), mine, config, seed=seed, epochs=2, accelerator=ONE)
        embed_cells(model, cells, CELL_IDS, CONDITIONS, ONE)
    assert sum(seen) == len(data.tokens.lengths)


def test_a_batch_reads_its_own_cells_and_no_others(checkpoint, tokens, tmp_path):
    cells = keep(build(checkpoint, config_of("last_n")), tokens, tmp_path)
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, places):
            read.append(len(places))
            return np.asarray(self)[places]

    assert isinstance(cells.array, np.memmap)
    rows = np.array([4, 100, 7])
    dataclasses.replace(cells, array=cells.array.view(Watched)).batch(rows)
    assert read == [tokens.lengths[rows].sum() + 3]


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_printed_before_it_is_written(checkpoint, tokens, tmp_path, kind, capsys, monkeypatch):
    model = build(checkpoint, config_of(kind, "float16"))
    whole = not model.frozen_states_per_token
    size = KINDS[kind][1] * 2 * (240 if whole else 240 + len(tokens.ids))
    printed = []
    write = cache._write
    monkeypatch.setattr(cache, "_write", lambda *args: printed.append(capsys.readouterr().out) or write(*args))
    keep(model, tokens, tmp_path)
    assert len(printed) == 1
    assert f"240 cells, {size / 2**30:.3g} GiB as float16" in printed[0]
    assert ("readouts" if whole else f"states below layer {model.frozen_layers}") in printed[0]
    (folder,) = tmp_path.iterdir()
    array = np.load(folder / "array.npy", mmap_mode="r")
    assert array.nbytes == size
    keep(model, tokens, tmp_path)
    assert len(printed) == 1
    assert "cache: found" in capsys.readouterr().out


@pytest.mark.parametrize("limit_gb", [0.0, 1e-7])
def test_above_the_limit_nothing_is_kept(checkpoint, tokens, tmp_path, capsys, limit_gb):
    model = build(checkpoint, config_of(limit_gb=limit_gb))
    assert keep(model, tokens, tmp_path / "cache") is tokens
    printed = capsys.readouterr().out
    size = 16 * 4 * (240 + len(tokens.ids)) / 2**30
    assert f"cache: off, states below layer 3 of 240 cells, {size:.3g} GiB" in printed
    assert f"finetune.cache.limit_gb ({limit_gb:g})" in printed
    assert "set it to 0.01" in printed
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_seen_before_it_is_full(checkpoint, tokens, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: cache.shutil._ntuple_diskusage(100, 10, 90))
    assert keep(build(checkpoint, config_of()), tokens, tmp_path) is tokens
    assert "8.38e-08 GiB left" in capsys.readouterr().out
    assert folders(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"adaptation__mode": "full"},
        {"adaptation__mode": "lora"},
        {"adaptation__mode": "frozen"},
        {"adaptation__mode": "last_n", "adaptation__last_layers": 3},
    ],
)
def test_nothing_is_kept_where_nothing_would_be_computed_twice(checkpoint, tokens, tmp_path, changes):
    assert keep(build(checkpoint, config_of(**changes)), tokens, tmp_path) is tokens
    assert folders(tmp_path) == []


def test_resampled_cells_cannot_be_kept(checkpoint, tokens, tmp_path, capsys):
    assert keep(build(checkpoint, config_of(augmentation__mixing=2)), tokens, tmp_path) is tokens
    assert "cache: off, finetune.augmentation" in capsys.readouterr().out


def test_an_interrupted_write_leaves_nothing(checkpoint, tokens, tmp_path, monkeypatch):
    model = build(checkpoint, config_of())
    monkeypatch.setitem(INFERENCE_TOKENS, "cpu", 2**14)  # numbers: several batches
    calls = []
    frozen = model.frozen

    def interrupted(batch):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return frozen(batch)

    monkeypatch.setattr(model, "frozen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(model, tokens, tmp_path)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("damage", ["a byte", "cut off", "no array", "no description", "half a description"])
def test_a_damaged_one_is_made_again(checkpoint, tokens, tmp_path, capsys, damage):
    model = build(checkpoint, config_of())
    wanted = np.array(keep(model, tokens, tmp_path).array)
    (folder,) = tmp_path.iterdir()
    array, about = folder / "array.npy", folder / "cache.json"
    content = bytearray(array.read_bytes())
    if damage == "a byte":
        content[-5] ^= 1
        array.write_bytes(content)
    elif damage == "cut off":
        array.write_bytes(content[:1000])
    elif damage == "half a description":
        about.write_text(about.read_text()[:40])
    else:
        (array if damage == "no array" else about).unlink()
    capsys.readouterr()
    assert (keep(model, tokens, tmp_path).array == wanted).all()
    assert f"{folder} is damaged and is made again" in capsys.readouterr().out
    assert folders(tmp_path) == [folder.name]
    keep(model, tokens, tmp_path)
    assert "is damaged" not in capsys.readouterr().out


def test_what_decides_the_content_decides_the_key(checkpoint, tokens, tmp_path):
    masked = np.ones(len(tokens.ids), dtype=bool)
    masked[0] = False
    lengths = tokens.lengths.copy()
    lengths[0] -= 1
    fewer = dataclasses.replace(
        tokens, ids=tokens.ids[masked], values=tokens.values[masked], offsets=np.concatenate([[0], np.cumsum(lengths)])
    )
    others = [
        (config_of(), tokens, "another checkpoint"),
        (config_of(), fewer, "c"),
        (config_of(), dataclasses.replace(tokens, values=tokens.values + 1), "c"),
        (config_of(), tokens.take(np.arange(240)[::-1]), "c"),
        (config_of(dtype="float16"), tokens, "c"),
        (config_of("head, no genes"), tokens, "c"),
        (config_of("head, no genes", head__readout=["mean", "cls"]), tokens, "c"),
        (config_of("head, no genes", head__readout=["mean"]), tokens, "c"),
        (config_of("last_n"), tokens, "c"),
        (config_of("last_n, no genes"), tokens, "c"),
    ]
    keep(build(checkpoint, config_of()), tokens, tmp_path)
    for number, (config, cells, digest) in enumerate(others):
        keep(build(checkpoint, config), cells, tmp_path, digest)
        assert len(folders(tmp_path)) == number + 2
    # What is trained does not decide it.
    same = config_of(head__width=7, head__dim=5, head__gene_rank=1, loss__label_smoothing=0.0, limit_gb=2.0)
    keep(build(checkpoint, same, seed=9), tokens, tmp_path)
    assert len(folders(tmp_path)) == len(others) + 1


def test_a_state_that_float16_cannot_hold(checkpoint, tokens, tmp_path):
    model = build(checkpoint, config_of(dtype="float16"))
    with torch.no_grad():
        model.backbone.transformer_encoder.layers[-1].norm2.weight.fill_(1e5)
    with pytest.raises(InputError, match=r"finetune\.cache\.dtype: a state is too large for float16"):
        keep(model, tokens, tmp_path)
    assert folders(tmp_path) == []
