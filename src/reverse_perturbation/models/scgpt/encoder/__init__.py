"""scGPT's encoder."""
