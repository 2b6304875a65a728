"""Stand-in for torchtext: only ``torchtext.vocab.Vocab`` and ``torchtext.vocab.vocab``.

torchtext is unmaintained and its last release (0.18) fails to load against torch 2.13 with an
OSError. scgpt 0.2.4 needs only these two names; with them the unmodified package imports.
"""

from torchtext import vocab as vocab

__version__ = "0.18.0+standin"
