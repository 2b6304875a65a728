"""Reverse perturbation retrieval: name the perturbation a cell received, with scGPT and with plain baselines."""
