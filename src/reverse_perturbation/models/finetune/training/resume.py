"""Resume interrupted training from the last completed epoch, bit for bit."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256 as hash_of
from io import BytesIO
from pathlib import Path
from socket import gethostname
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reverse_perturbation.errors import InUseError
from reverse_perturbation.models.finetune.network.classifier import EncoderClassifier
from reverse_perturbation.models.finetune.training.ema import Ema
from reverse_perturbation.models.finetune.training.history import Epoch
from reverse_perturbation.storage import sha256, source_sha256, write_atomically

MODELS = Path(__file__).parents[2]
PATIENCE = 5.0  # seconds for another run to end: one whose DVC was killed notices within a second
DIGEST = 32  # bytes of the checksum in front of a saved state


@dataclass
class TrainingState:
    """Everything that changes while a model is trained.

    Attributes
    ----------
    model, optimizer, schedule, ema
        Trained, or training it; ``ema`` may be None.
    rng
        Draws the order of cells and resamples them; torch draws from its own global generators.
    history
        The epochs so far.
    chosen
        Trained weights of the one that would be kept if it were the last.
    """

    model: EncoderClassifier
    optimizer: AdamW
    schedule: LambdaLR
    ema: Ema | None
    rng: np.random.Generator
    history: list[Epoch] = field(default_factory=list)
    chosen: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        state = {
            "weights": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": None if self.ema is None else {"mean": self.ema.mean, "steps": self.ema.steps},
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "history": [asdict(epoch) for epoch in self.history],
            "chosen": self.chosen,
        }
        buffer = BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        with write_atomically(path) as temporary:
            temporary.write_bytes(hash_of(content).digest() + content)

    def load(self, path: Path) -> bool:
        """Put back what :meth:`save` wrote, torch's generators included.

        Returns
        -------
        bool
            False, with nothing changed, where there is no file, or one that is damaged, which is said.
        """
        if not path.exists():
            return False
        content = path.read_bytes()
        if hash_of(content[DIGEST:]).digest() != content[:DIGEST]:  # torch reads a flipped bit as a weight
            print(f"{path}: damaged; this fit starts anew", flush=True)
            return False
        state = torch.load(BytesIO(content[DIGEST:]), map_location="cpu", weights_only=True)
        self.model.load_trainable_state(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.steps = state["ema"]["steps"]
            for name, mean in self.ema.mean.items():
                mean.copy_(state["ema"]["mean"][name])
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.chosen = state["chosen"]
        return True


@contextmanager
def resume_folder(
    root: str | Path, files: Mapping[str, str | Path], settings: Mapping[str, Any], *, is_main_process: bool = True
) -> Iterator[Path]:
    """Yield the folder for the states of one run, locked; delete it when the block has ended well.

    Its name is a hash of everything training depends on: the contents of ``files``, the ``settings``, the
    code of all models, torch's version. A run that differs in any of them gets another folder and starts anew.

    Parameters
    ----------
    root
        Folder of such folders.
    files
        What the run reads, files or folders; their names play no part.
    settings
        Anything that JSON can hold.
    is_main_process
        Of several processes of one run the main one locks and deletes the folder.

    Raises
    ------
    InUseError
        If another run holds the folder. The lock is the operating system's and ends with its process, killed or not.
    """
    about = {
        "files": {name: sha256(path) for name, path in files.items()},
        "settings": dict(settings),
        "code": source_sha256([MODELS]),
        "torch": [torch.__version__, torch.cuda.is_available()],
    }
    folder = Path(root) / hash_of(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    if not is_main_process:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        yield folder
        shutil.rmtree(folder, ignore_errors=True)  # network file systems keep a file that is open, the lock


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock, holder = FileLock(folder / "lock"), folder / "holder.txt"
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        by = holder.read_text() if holder.exists() else "another process"
        raise InUseError(f"{folder}: {by} is training this very model; wait for it, or end it and repeat") from None
    try:
        holder.write_text(f"process {os.getpid()} on {gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        yield
    finally:
        lock.release()
