"""A token <-> index table with the interface scgpt's ``GeneVocab`` builds upon."""

from __future__ import annotations

from collections import OrderedDict
from typing import Iterable, Optional

from torch import nn


class _Table:
    """Holds the mapping; plays the part of torchtext's C++ object, ``Vocab.vocab``."""

    def __init__(self, tokens: Iterable[str]):
        self.itos = list(tokens)
        self.stoi = {token: index for index, token in enumerate(self.itos)}
        if len(self.stoi) != len(self.itos):
            raise RuntimeError("Vocab: a token occurs twice")
        self.default_index: Optional[int] = None


class Vocab(nn.Module):
    """Mapping of tokens to consecutive indices."""

    def __init__(self, vocab):
        super().__init__()
        self.vocab = vocab

    def __len__(self) -> int:
        return len(self.vocab.itos)

    def __contains__(self, token: str) -> bool:
        return token in self.vocab.stoi

    def __getitem__(self, token: str) -> int:
        index = self.vocab.stoi.get(token, self.vocab.default_index)
        if index is None:
            raise RuntimeError(f"Token {token} not found and default index is not set")
        return index

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        return self.lookup_indices(tokens)

    def forward(self, tokens: Iterable[str]) -> list[int]:
        return self.lookup_indices(tokens)

    def lookup_indices(self, tokens: Iterable[str]) -> list[int]:
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        return self.vocab.itos[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        return [self.vocab.itos[index] for index in indices]

    def append_token(self, token: str) -> None:
        self.insert_token(token, len(self))

    def insert_token(self, token: str, index: int) -> None:
        if token in self:
            raise RuntimeError(f"Token {token} already exists in the Vocab")
        self.vocab.itos.insert(index, token)
        self.vocab.stoi = {t: i for i, t in enumerate(self.vocab.itos)}

    def set_default_index(self, index: Optional[int]) -> None:
        self.vocab.default_index = index

    def get_default_index(self) -> Optional[int]:
        return self.vocab.default_index

    def get_stoi(self) -> dict[str, int]:
        return dict(self.vocab.stoi)

    def get_itos(self) -> list[str]:
        return list(self.vocab.itos)


def vocab(ordered_dict: "OrderedDict[str, int]", min_freq: int = 1, specials=None, special_first=True) -> Vocab:
    """Build a vocabulary from token counts, in their order; rare tokens are left out."""
    tokens = [t for t, count in ordered_dict.items() if count >= min_freq]
    specials = list(specials or [])
    tokens = [t for t in tokens if t not in specials]
    return Vocab(_Table(specials + tokens if special_first else tokens + specials))
