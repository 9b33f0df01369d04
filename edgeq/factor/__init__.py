"""Factorised layers: Kronecker products, Tucker banks and low rank, and what they cost."""
