"""scGPT checkpoints: a folder is loaded whole, or loading fails and says what is missing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen.masked_screen import MaskedScreen
from reverse_perturbation.errors import InputError
from reverse_perturbation.models.encoder.interface import Checkpoint, Tokenizer
from reverse_perturbation.models.scgpt.encoder.backbone import Architecture, ScgptBackbone
from reverse_perturbation.models.scgpt.encoder.layouts import OPTIONAL, REQUIRED, Layout, to_official
from reverse_perturbation.models.scgpt.encoder.published import identify
from reverse_perturbation.models.scgpt.encoder.tensors import read_tensors
from reverse_perturbation.models.scgpt.encoder.tokenize import gene_token_ids, make_tokenizer
from reverse_perturbation.models.scgpt.encoder.vocabulary import read_json_of, read_vocabulary_file, weights_file
from reverse_perturbation.storage import sha256, write_atomically, write_json


@dataclass(frozen=True)
class LoadReport:
    """Tensors of a file that were loaded.

    Attributes
    ----------
    layout
        The naming found.
    loaded
        Number of tensors loaded.
    missing
        Names the model has and the file lacks: only of parts that are not used here.
    unexpected
        Names the file has and the model lacks.
    sha256, folder_sha256
        Of the weights' file, and of the whole folder, which a fine-tuned model records.
    name
        What is known of its origin, if anything.
    """

    layout: Layout
    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    sha256: str
    folder_sha256: str
    name: str | None

    def __str__(self) -> str:
        """Summarise in one line."""
        return (
            f"{self.name or 'a checkpoint of unknown origin'}, {self.layout} layout: {self.loaded} tensors loaded, "
            f"{len(self.missing)} missing, {len(self.unexpected)} not used"
        )


@dataclass(frozen=True)
class ScgptCheckpoint(Checkpoint):
    """scGPT with its vocabulary (token -> id); ``report`` is None for a model that was never on disk."""

    backbone: ScgptBackbone
    vocabulary: dict[str, int]
    architecture: Architecture
    report: LoadReport | None

    @property
    def sha256(self) -> str:
        """Hash of the folder it was loaded from."""
        assert self.report is not None
        return self.report.folder_sha256

    def tokenizer(self, screen: MaskedScreen, params: Params) -> Tokenizer:
        """Return what turns this screen, or one of cells resampled from it, into tokens."""
        return make_tokenizer(screen, self.vocabulary, self.architecture, params.scgpt)

    def token_ids(self, screen: MaskedScreen) -> Tensor:
        """Return LongTensor: the token ids that the screen's genes can produce, each once, in order."""
        ids = gene_token_ids(screen, self.vocabulary)
        return torch.from_numpy(np.unique(ids[ids >= 0]))


def load_checkpoint(folder: str | Path) -> ScgptCheckpoint:
    """Load a folder with ``args.json``, ``vocab.json`` and weights (see ``vocabulary.WEIGHTS`` and ``tensors``).

    Every tensor of the gene encoder, the value encoder and the transformer must be there, finite and of the
    right shape; decoders and the like may be absent or extra, nothing else may. Absent ones are zero. Published
    weights must belong to their vocabulary (see ``published``).

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.
    """
    path, folder = weights_file(folder), Path(folder)
    architecture = Architecture.from_args(read_json_of(folder / "args.json"), folder / "args.json")
    vocabulary = read_vocabulary_file(folder, architecture.pad_token)
    state, layout = to_official(read_tensors(path), path)
    with torch.device("meta"):  # shapes alone: sizes in args.json take no memory before the file has proved them
        model = ScgptBackbone(architecture, vocabulary)
    expected = model.state_dict()
    _check(path, state, expected)
    used = {name: tensor for name, tensor in state.items() if name in expected and expected[name].shape == tensor.shape}
    digest = sha256(path)
    origin = identify(used["encoder.embedding.weight"], vocabulary, digest, folder)
    model.to_empty(device="cpu")
    model.load_state_dict({name: used.get(name, torch.zeros(meta.shape)) for name, meta in expected.items()})
    report = LoadReport(
        layout,
        len(used),
        tuple(sorted(expected.keys() - used.keys())),
        tuple(sorted(state.keys() - used.keys())),
        digest,
        sha256(folder),
        origin,
    )
    return ScgptCheckpoint(model.eval(), vocabulary, architecture, report)


def save_checkpoint(
    folder: str | Path, model: ScgptBackbone, vocabulary: dict[str, int], architecture: Architecture
) -> None:
    """Write the official layout, atomically; the same weights give the same bytes."""
    with write_atomically(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / "args.json", architecture.to_args())
        write_json(temporary / "vocab.json", vocabulary)
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, temporary / "best_model.pt")


def _check(path: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    required = sorted(name for name in expected if REQUIRED.match(name))
    problems = [f"{name} is missing" for name in required if name not in state]
    for name in (name for name in required if name in state):
        tensor, shape = state[name], tuple(expected[name].shape)
        if tuple(tensor.shape) != shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
        if not tensor.is_floating_point():
            problems.append(f"{name} holds {tensor.dtype}, not floating point numbers")
        elif not torch.isfinite(tensor.float()).all():  # as it is loaded: a double can be too large for float32
            problems.append(f"{name} is not finite")
    stray = sorted(name for name in state if name not in expected and not OPTIONAL.match(name))
    problems += [f"{name} has no place in a model of args.json" for name in stray]
    if problems:
        more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise InputError(
            f"{path}: {len(problems)} tensors cannot be loaded: {'; '.join(problems[:12])}{more}. "
            "A model loads whole or not at all; check that args.json and the weights belong together"
        )
