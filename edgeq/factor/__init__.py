"""Factorised layers: Kronecker products, Tucker banks and low rank, in the place of dense matrices."""
