"""Factors of trained matrices: nearest Kronecker products, truncated SVD, and Tucker decomposition."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator

import torch

from edgeq.factor.matrices import check_rank

_ITERATIONS = 2
"""Alternating least squares gains little after the first steps; training repairs the rest."""


def rearranged(matrix: torch.Tensor, left: tuple[int, int], right: tuple[int, int]) -> torch.Tensor:
    """Writes each block of a matrix as a row, so that a Kronecker product becomes an outer product.

    Van Loan and Pitsianis, Approximation with Kronecker Products (1993): ``||W - A (x) B|| = ||R(W) - a b^T||``.

    Args:
        matrix: ``[m1 m2, n1 n2]``.
        left: ``(m1, n1)``.
        right: ``(m2, n2)``.

    Returns:
        ``[m1 n1, m2 n2]``.
    """
    (m1, n1), (m2, n2) = left, right
    return matrix.reshape(m1, m2, n1, n2).permute(0, 2, 1, 3).reshape(m1 * n1, m2 * n2)


def nearest_kronecker(
    matrix: torch.Tensor, left: tuple[int, int], right: tuple[int, int], *, terms: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds the sum of Kronecker products that is nearest to a matrix in the Frobenius norm.

    Args:
        matrix: Float, ``[m1 m2, n1 n2]``.
        left: ``(m1, n1)``.
        right: ``(m2, n2)``.
        terms: Number of products.

    Returns:
        ``A [terms, m1, n1]`` and ``B [terms, m2, n2]``. In each product the factor with fewer numbers (``B`` where
        both have as many) has the root mean square 1, and the other one has the scale. With the singular value
        shared out evenly, a right factor of two numbers would be some ten, and every step of the many numbers on the
        left would count ten times: no single learning rate would suit both.
    """
    rows = rearranged(matrix.float(), left, right)
    if rows.shape[0] < rows.shape[1]:
        v, u = _scaled_factors(rows.T, terms)
    else:
        u, v = _scaled_factors(rows, terms)
    return u.T.reshape(terms, *left), v.T.reshape(terms, *right)


def kronecker_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns ``sum_r A_r (x) B_r`` for ``A [r, m1, n1]`` and ``B [r, m2, n2]``."""
    product = torch.einsum("rij,rkl->ikjl", left, right)
    return product.flatten(0, 1).flatten(1)


def truncated_svd(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Finds the nearest matrix of a rank.

    Args:
        matrix: Float, ``[rows, columns]``.
        rank: At most the smaller dimension.

    Returns:
        ``up [rows, rank]``, singular values ``[rank]``, and ``down [rank, columns]``.
    """
    check_rank("truncated SVD", rank, min(matrix.shape))
    u, s, v = torch.linalg.svd(matrix.float(), full_matrices=False)
    return u[:, :rank].contiguous(), s[:rank].clone(), v[:rank].contiguous()


def _scaled_factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors ``[m, r]``, with the scale, and ``[n, r]``, of root mean square 1, for ``m >= n``: the nearest matrix."""
    # One side has a handful of columns (the entries of the small factor); a full SVD would be wasted on it.
    exact = matrix.double()
    _, vectors = torch.linalg.eigh(exact.T @ exact)
    v = vectors.flip(1)[:, :rank]
    root = math.sqrt(len(v))  # of vectors of length 1 to a root mean square of 1
    return ((exact @ v) / root).float(), (v * root).float()


def shared_outer_factors(slices: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tucker-2: ``W_i ~ U S_i V`` with one ``U`` and one ``V`` (III-d of Ren et al.).

    Args:
        slices: Float, ``[n, D, D]``.
        rank: ``d``.

    Returns:
        ``U [D, d]``, ``S [n, d, d]`` and ``V [d, D]``.
    """
    from tensorly.decomposition import partial_tucker

    with _tensorly():
        (core, (u, v)), _ = partial_tucker(
            slices.float(), rank=[rank, rank], modes=[1, 2], n_iter_max=_ITERATIONS, svd=_leading_vectors
        )
    return u.contiguous(), core.contiguous(), v.T.contiguous()


def tucker(
    slices: torch.Tensor, *, cores: int, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tucker decomposition: ``W_i ~ U (sum_m P_im C_m) V`` (IV-l-d of Ren et al.).

    Args:
        slices: Float, ``[n, D, D]``.
        cores: ``l``.
        rank: ``d``.

    Returns:
        ``U [D, d]``, ``P [n, l]``, ``C [l, d, d]`` and ``V [d, D]``.
    """
    from tensorly.decomposition import tucker as decompose

    with _tensorly():
        core, (p, u, v) = decompose(
            slices.float(), rank=[cores, rank, rank], n_iter_max=_ITERATIONS, svd=_leading_vectors
        )
    return u.contiguous(), p.contiguous(), core.contiguous(), v.T.contiguous()


def _leading_vectors(
    matrix: torch.Tensor, n_eigenvecs: int, **_: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left singular vectors by way of the Gram matrix, for tensorly: the unfolded slices are very wide.

    tensorly reads the vectors on the left only; those on the right have no width here.
    """
    values, vectors = torch.linalg.eigh((matrix @ matrix.T).double())
    u = vectors.flip(1)[:, :n_eigenvecs].to(matrix.dtype)
    s = values.flip(0)[:n_eigenvecs].clamp(min=0).sqrt().to(matrix.dtype)
    return u, s, matrix.new_zeros(u.shape[1], 0)


@contextlib.contextmanager
def _tensorly() -> Iterator[None]:
    """PyTorch as tensorly's backend here, whatever it is elsewhere; its remarks on convergence say nothing new."""
    import tensorly

    with tensorly.backend_context("pytorch"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
