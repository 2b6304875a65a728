"""The masked screen, from the inputs of the stages that fit models."""

import argparse

from reverse_perturbation.config import Params
from reverse_perturbation.data.screen import Screen, load_screen

SCREEN = ("--cells", "--split", "--genes")


def screen_of(args: argparse.Namespace, params: Params, *, controls: bool = False) -> Screen:
    """Load the masked screen from a stage's inputs."""
    return load_screen(args.cells, args.split, args.genes, mask=params.mask, genes=params.data.genes, controls=controls)
