"""A checkpoint loads whole, in every layout people have, or fails and says what is wrong."""

import hashlib
import json
import re
import resource
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.encoder import published
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.checkpoint import load_checkpoint, save_checkpoint
from reverse_perturbation.models.scgpt.encoder.tensors import read_tensors
from reverse_perturbation.models.scgpt.encoder.vocabulary import default_vocabulary

# From the official name of a tensor to its name in other layouts.
OTHERS = {
    "pytorch_attention": lambda n: re.sub(r"self_attn\.Wqkv\.", "self_attn.in_proj_", n),
    "flash_impl": lambda n: re.sub(r"self_attn\.(Wqkv|out_proj)", r"self_attn._impl.\1", n),
    "nano": lambda n: n.replace("self_attn.Wqkv.", "self_attn.in_proj."),
    "rehost": lambda n: (
        re.sub(r"^decoder\.", "expr_decoder.", re.sub(r"^encoder\.", "gene_encoder.", n))
        .replace("transformer_encoder.layers.", "transformer.layers.")
        .replace("self_attn.Wqkv.", "self_attn.in_proj_")
    ),
}


def weights(folder):
    return torch.load(folder / "best_model.pt", weights_only=True)


@pytest.fixture
def copy(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    return folder


def embeddings(folder, tokens) -> torch.Tensor:
    backbone, batch = load_checkpoint(folder).backbone, tokens.batch(np.arange(20))
    with torch.no_grad():
        return backbone.transform(backbone.embed(batch), batch.padding)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("file", ["best_model.pt", "model.safetensors"])
@pytest.mark.parametrize("layout", ["official", *OTHERS])
def test_every_layout_gives_the_same_embeddings(checkpoint, copy, tokens, layout, file, prefix):
    rename = OTHERS.get(layout, lambda n: n)
    state = {prefix + rename(name): tensor for name, tensor in weights(checkpoint).items()}
    if layout == "nano":
        state = {name: t for name, t in state.items() if "decoder" not in name}
    (copy / "best_model.pt").unlink()
    if file.endswith(".pt"):
        torch.save(state, copy / file)
    else:
        save_file(state, copy / file)
    report = load_checkpoint(copy).report
    assert report.layout == layout
    assert report.loaded == len(state)
    assert report.unexpected == ()
    assert all("decoder" in name for name in report.missing)
    assert torch.equal(embeddings(copy, tokens), embeddings(checkpoint, tokens))


def test_saved_twice_is_the_same_bytes(checkpoint, tmp_path):
    loaded = load_checkpoint(checkpoint)
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, loaded.backbone, loaded.vocabulary, loaded.architecture)
    for file in ("args.json", "vocab.json", "best_model.pt"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_extra_decoders_are_reported_and_harmless(copy, checkpoint, tokens):
    state = weights(copy) | {"flag_encoder.weight": torch.zeros(2, 16), "pert_encoder.weight": torch.zeros(3, 16)}
    torch.save(state, copy / "best_model.pt")
    assert load_checkpoint(copy).report.unexpected == ("flag_encoder.weight", "pert_encoder.weight")
    assert torch.equal(embeddings(copy, tokens), embeddings(checkpoint, tokens))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_loaded_as_float32(copy, dtype):
    state = {name: tensor.to(dtype) for name, tensor in weights(copy).items()}
    torch.save(state, copy / "best_model.pt")
    found = load_checkpoint(copy).backbone.state_dict()
    for name, tensor in state.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.float())


def test_a_known_file_is_named(checkpoint, monkeypatch):
    unknown = load_checkpoint(checkpoint).report
    assert unknown.name is None
    assert unknown.sha256 == hashlib.sha256((checkpoint / "best_model.pt").read_bytes()).hexdigest()
    monkeypatch.setitem(published.KNOWN, unknown.sha256, "a known one")
    assert load_checkpoint(checkpoint).report.name == "a known one"
    assert str(load_checkpoint(checkpoint).report).startswith("a known one, official layout")


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_a_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=re.escape(name)):
        load_checkpoint(copy)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"no such folder; set scgpt\.checkpoint"):
        load_checkpoint(tmp_path / "none")


QKV = "transformer_encoder.layers.1.self_attn.Wqkv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(QKV), f"{QKV} is missing"),
        (
            lambda s: s.update({"transformer_encoder.layers.1.other": s.pop(QKV)}),
            f"{QKV} is missing.*other has no place",
        ),
        (lambda s: s.update({QKV: s[QKV][:-1].clone()}), r"has shape \(47, 16\), not \(48, 16\)"),
        (lambda s: s.update({QKV: s[QKV] * float("nan")}), f"{QKV} is not finite"),
        (lambda s: s.update({QKV: s[QKV].double() * 1e300}), f"{QKV} is not finite"),
        (lambda s: s.update({QKV: s[QKV].long()}), f"{QKV} holds torch.int64, not floating point"),
        (lambda s: s.update({"dsbn.bns.0.weight": torch.ones(16)}), r"dsbn\.bns\.0\.weight has no place"),
        (lambda s: s.update({QKV.replace("Wqkv.", "in_proj_"): s[QKV] * 2}), "are the same tensor"),
        (lambda s: s.update({"module." + QKV: s[QKV] * 2}), f"module.{QKV} are the same tensor"),
        (lambda s: s.pop("encoder.enc_norm.weight"), r"encoder\.enc_norm\.weight is missing"),
        (lambda s: s.pop("value_encoder.linear2.bias"), r"value_encoder\.linear2\.bias is missing"),
    ],
)
def test_a_tensor_that_does_not_fit(copy, change, message):
    state = weights(copy)
    change(state)
    torch.save(state, copy / "best_model.pt")
    with pytest.raises(InputError, match=message):
        load_checkpoint(copy)


def test_all_problems_are_listed_at_once(copy):
    state = {name: tensor for name, tensor in weights(copy).items() if "Wqkv" not in name}
    torch.save(state, copy / "best_model.pt")
    with pytest.raises(InputError, match="6 tensors cannot be loaded"):
        load_checkpoint(copy)


class Harmful:
    def __reduce__(self):
        return print, ("code of a checkpoint was run",)


@pytest.mark.parametrize(
    "content",
    [
        Harmful(),
        {"model_state_dict": {"a": torch.zeros(1)}, "epoch": 3},
        [torch.zeros(1)],
        {},
        {0: torch.zeros(1)},
        {"a": torch.zeros(2, 2).to_sparse()},
    ],
    ids=["code", "nested", "list", "empty", "no names", "sparse"],
)
def test_a_pickle_that_is_no_state_dict(copy, content, capsys):
    torch.save(content, copy / "best_model.pt")
    with pytest.raises(InputError, match=r"best_model\.pt: .*state dict"):
        load_checkpoint(copy)
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("file", ["best_model.pt", "model.safetensors"])
def test_a_truncated_file(copy, file):
    whole = copy / "best_model.pt"
    if file == "model.safetensors":
        save_file(weights(copy), copy / file)
        whole.unlink()
    path = copy / file
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=re.escape(file)):
        load_checkpoint(copy)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_an_input_error_whatever_the_unpickler_raises(copy, zipped):
    """Cut anywhere or with bytes changed; a change within the numbers cannot be seen."""
    path = copy / "best_model.pt"
    torch.save(weights(copy), path, _use_new_zipfile_serialization=zipped)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), {"cut": 0, "changed": 0}
    for i in range(120):
        kind = ("cut", "changed")[i % 2]
        damaged = bytearray(whole[: rng.integers(len(whole))] if kind == "cut" else whole)
        for at in rng.integers(0, 3000, 3 if kind == "changed" else 0):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except InputError:
            refused[kind] += 1
    assert refused["cut"] == 60
    assert refused["changed"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("<cls>"), "'<cls>' is missing"),
        (lambda v: v.pop("<pad>"), "'<pad>' is missing"),
        (lambda v: v.update({"G0": 999}), "ids are not 0 to"),
        (lambda v: v.update({"G0": "0"}), "expected an object of token"),
    ],
)
def test_a_broken_vocabulary(copy, change, message):
    path = copy / "vocab.json"
    vocabulary = json.loads(path.read_text())
    change(vocabulary)
    path.write_text(json.dumps(vocabulary))
    with pytest.raises(InputError, match=message):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_emb_style": "category"}, "input_emb_style is 'category'; only 'continuous'"),
        ({"cell_emb_style": "avg-pool"}, "cell_emb_style is 'avg-pool'; only 'cls'"),
        ({"nlayers": "3"}, "nlayers is '3'; expected int"),
        ({"nheads": 3}, "embsize 16 is not divisible by nheads 3"),
        ({"embsize": None}, "embsize is missing"),
        ({"input_style": "normed_raw"}, "input_style is 'normed_raw'; only 'binned' and 'log1p' are supported"),
        ({"pad_token": "G0"}, "pad_token is 'G0'; only '<pad>'"),
        ({"nheads": 0}, "nheads is 0; expected at least 1"),
        ({"d_hid": -1}, "d_hid is -1; expected at least 1"),
        ({"n_bins": 2}, "n_bins is 2; expected at least 3"),
        ({"dropout": 1.5}, "dropout is 1.5; expected at least 0 and below 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_args_that_are_not_supported(copy, change, message):
    path = copy / "args.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_checkpoint(copy)


def test_args_that_are_not_json(copy):
    (copy / "args.json").write_text("{")
    with pytest.raises(InputError, match=r"args\.json: not JSON"):
        load_checkpoint(copy)


@pytest.mark.slow
def test_the_official_layout_at_full_size(tmp_path):
    """Sizes as reference/scgpt_checkpoints.md gives them; random weights."""
    args = {"nlayers": 12, "nheads": 8, "embsize": 512, "d_hid": 512, "dropout": 0.2, "MVC": True}
    architecture = Architecture.from_args(args, "test")
    vocabulary = default_vocabulary()
    assert (len(vocabulary), vocabulary["<pad>"], vocabulary["<cls>"], vocabulary["<eoc>"]) == (
        60697,
        60694,
        60695,
        60696,
    )
    model = ScgptBackbone(architecture, vocabulary)
    state = {name: t for name, t in model.state_dict().items() if not name.startswith("cls_decoder")}
    state["flag_encoder.weight"] = torch.zeros(2, 512)
    assert len(state) == 163
    assert sum(tensor.numel() for tensor in state.values()) == 51_330_049
    save_checkpoint(tmp_path / "full", model, vocabulary, architecture)
    torch.save(state, tmp_path / "full" / "best_model.pt")
    loaded = load_checkpoint(tmp_path / "full")
    assert loaded.report.loaded == 162
    assert loaded.report.unexpected == ("flag_encoder.weight",)
    assert all(name.startswith("cls_decoder") for name in loaded.report.missing)
    for name, tensor in loaded.backbone.state_dict().items():
        assert name.startswith("cls_decoder") or torch.equal(tensor, state[name])


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "base_model.model.", "module._orig_mod.model.module."])
def test_names_behind_wrappers(checkpoint, copy, tokens, prefix):
    torch.save({prefix + name: tensor for name, tensor in weights(checkpoint).items()}, copy / "best_model.pt")
    assert torch.equal(embeddings(copy, tokens), embeddings(checkpoint, tokens))


def test_layers_that_were_compiled(checkpoint, copy, tokens):
    state = {re.sub(r"(layers\.\d)", r"\1._orig_mod", name): t for name, t in weights(checkpoint).items()}
    torch.save(state, copy / "best_model.pt")
    assert torch.equal(embeddings(copy, tokens), embeddings(checkpoint, tokens))


def test_absent_decoders_are_zero_and_loading_draws_no_random_numbers(copy):
    state = {name: t for name, t in weights(copy).items() if not name.startswith("cls_decoder")}
    torch.save(state, copy / "best_model.pt")
    before = torch.get_rng_state()
    loaded = load_checkpoint(copy).backbone.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, state.get(name, torch.zeros_like(tensor)))


@pytest.fixture
def sharded(copy):
    state, places = weights(copy), {}
    for i, names in enumerate((list(state)[:9], list(state)[9:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, copy / file)
        places |= dict.fromkeys(names, file)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (copy / "best_model.pt").unlink()
    return copy


def test_shards(checkpoint, sharded, tokens):
    assert load_checkpoint(sharded).report.missing == ()
    assert torch.equal(embeddings(sharded, tokens), embeddings(checkpoint, tokens))


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"00002\.safetensors: model\.safetensors\.index\.json names it"):
        load_checkpoint(sharded)


@pytest.mark.parametrize("places", [None, [], {}, {"a": "../best_model.pt"}, {"a": "/etc/x.safetensors"}, {"a": 1}])
def test_an_index_that_names_no_files_beside_it(sharded, places):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match="weight_map is no object of tensor -> file of this folder"):
        load_checkpoint(sharded)


def compressed(folder):
    """A file of 2 MB that unpacks to 2 GB."""
    with zipfile.ZipFile(folder / "best_model.pt") as whole:
        entries = {entry: whole.read(entry) for entry in whole.namelist()}
    with zipfile.ZipFile(folder / "best_model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if not name.endswith("data/0"):
                archive.writestr(name, content)
        with archive.open(next(name for name in entries if name.endswith("data/0")), "w", force_zip64=True) as file:
            for _ in range(128):
                file.write(bytes(2**24))


def rewritten(**changes):
    """Change tensors of the weights."""

    def change(folder):
        state = weights(folder)
        torch.save(state | {name: make(state) for name, make in changes.items()}, folder / "best_model.pt")

    return change


def whole_model(folder):
    torch.save(load_checkpoint(folder).backbone, folder / "best_model.pt")


def args(**changes):
    def change(folder):
        path = folder / "args.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 205385258\n"
TABLE = "encoder.embedding.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(args(nlayers=10**9), "nlayers is 1000000000; expected at least 1 and below 1000", id="layers"),
        pytest.param(args(nlayers=1e9), "nlayers is 1000000000.0; expected int", id="layers as a float"),
        pytest.param(args(nlayers=999), "cannot be loaded: .* and 11940 more", id="layers that are not there"),
        pytest.param(args(embsize=2**62), "embsize is 4611686018427387904; expected", id="width"),
        pytest.param(args(embsize=65528, d_hid=65528), "cannot be loaded: .*has shape", id="a width of 500 GB"),
        pytest.param(args(pad_value=10**400), r"pad_value is 1000\d+\.\.\.", id="pad_value"),
        pytest.param(args(input_style="x" * 10**6), r"input_style is 'xxx.*\.\.\.x*'; only", id="a long text"),
        pytest.param(text("args.json", "[" * 10**6), r"args\.json: not JSON .*nested too deeply", id="deep"),
        pytest.param(text("vocab.json", f'{{"a": {"9" * 5000}}}'), r"vocab\.json: not JSON .*4300 digits", id="digits"),
        pytest.param(text("vocab.json", " " * (2**26 + 1)), r"vocab\.json: 67,108,865 bytes", id="large"),
        pytest.param(text("args.json", POINTER), r"args\.json: a git LFS pointer.*`git lfs pull`", id="pointer, args"),
        pytest.param(text("best_model.pt", POINTER), r"best_model\.pt: a git LFS pointer", id="pointer, weights"),
        pytest.param(compressed, r"it unpacks to 2,14\d,\d+,\d+ bytes", id="compressed"),
        pytest.param(whole_model, "it is damaged or holds other Python objects", id="whole model"),
        pytest.param(rewritten(**{TABLE: lambda s: s[TABLE].to("meta")}), r"has a shape but no numbers", id="meta"),
        pytest.param(
            rewritten(**{TABLE: lambda s: torch.zeros(1).expand(99999, 16)}), "share or repeat", id="expanded"
        ),
        pytest.param(
            rewritten(**{f"decoder.{i}": lambda s: s[TABLE] for i in range(99)}), "share or repeat", id="shared"
        ),
    ],
)
def test_a_hostile_file_is_one_line_in_seconds_and_little_memory(copy, change, message):
    change(copy)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match=message) as refused:
        load_checkpoint(copy)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 2000
    assert "weights_only" not in str(refused.value)
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def test_folders_in_place_of_files_and_files_that_may_not_be_read(copy):
    (copy / "args.json").unlink()
    (copy / "args.json").mkdir()
    with pytest.raises(InputError, match=r"args\.json: Is a directory"):
        load_checkpoint(copy)
