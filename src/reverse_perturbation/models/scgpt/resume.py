"""Interrupted training goes on at the last whole epoch, as if nothing had happened."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256 as hash_of
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reverse_perturbation.errors import InputError
from reverse_perturbation.models.scgpt.classifier import ScgptClassifier
from reverse_perturbation.models.scgpt.ema import Ema
from reverse_perturbation.models.scgpt.history import Epoch
from reverse_perturbation.storage import sha256, write_atomically


@dataclass
class Progress:
    """Everything that moves while a model is trained.

    Attributes
    ----------
    model, optimizer, schedule, ema
        Trained, or training it; ``ema`` may be None.
    order
        Decides the order of cells and what is drawn of them. What torch draws comes from its own global generators.
    history
        The epochs so far.
    chosen
        Trained weights of the one that would be kept if it were the last.
    """

    model: ScgptClassifier
    optimizer: AdamW
    schedule: LambdaLR
    ema: Ema | None
    order: np.random.Generator
    history: list[Epoch] = field(default_factory=list)
    chosen: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write all of it atomically."""
        state = {
            "weights": self.model.trainable_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": None if self.ema is None else {"mean": self.ema.mean, "steps": self.ema.steps},
            "order": json.dumps(self.order.bit_generator.state),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "history": [asdict(epoch) for epoch in self.history],
            "chosen": self.chosen,
        }
        with write_atomically(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Put back what :meth:`save` wrote, torch's generators included.

        Raises
        ------
        InputError
            If the file is broken.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError) as error:
            kind = type(error).__name__
            raise InputError(f"{path}: not readable ({kind}); delete it to start the fit anew") from None
        self.model.load_trainable_state(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.steps = state["ema"]["steps"]
            for name, mean in self.ema.mean.items():
                mean.copy_(state["ema"]["mean"][name])
        self.order.bit_generator.state = json.loads(state["order"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.chosen = state["chosen"]


@contextmanager
def kept_until_done(root: str | Path, files: dict[str, str | Path], settings: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder for the states of one run; delete it when the block has ended well.

    Its name is a hash of all that decides the course of training: the contents of ``files``, the ``settings``, this
    package's code, torch's version. A run that differs in any of them gets another folder and begins at its beginning.

    Parameters
    ----------
    root
        Folder of such folders.
    files
        What the run reads, files or folders; their names play no part.
    settings
        What JSON can hold.
    """
    about = {
        "files": {name: sha256(path) for name, path in files.items()},
        "settings": settings,
        "code": {path.name: sha256(path) for path in Path(__file__).parent.glob("*.py")},
        "torch": [torch.__version__, torch.cuda.is_available()],
    }
    folder = Path(root) / hash_of(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # another process may be faster
