"""A second foundation model, as small as the interface allows: a table of genes and one layer."""
