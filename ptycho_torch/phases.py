"""Global phases of reconstructions that overlap, made to agree: least squares on the graph of their overlaps.

Knows neither scans nor files: only which tiles overlap, and what their overlap says.
"""

import numpy as np
from jaxtyping import Complex64, Complex128, Int64
from scipy import sparse
from scipy.sparse import csgraph, linalg

from shapecheck import contract

__all__ = ["phases_that_agree"]

Links = Complex128[np.ndarray, " n"]  # products of two tiles where both have a say
Ends = Int64[np.ndarray, "n 2"]  # the tiles that they link
Turns = Complex64[np.ndarray, "{n_tiles}"]  # of modulus 1, one for each tile


@contract
def phases_that_agree(products: Links, ends: Ends, n_tiles: int) -> Turns:
    """Return what to multiply tiles by, so that they agree where they meet.

    Along the tree of the links that say most, phases are carried over as they are; what the other links say is then
    settled by least squares, all at once. The first tile of every connected part stays as it is.

    Args:
        products: Sum of the conjugate of one tile times another one, where both have a say.
        ends: The one, and the other.
        n_tiles: Those without links stay as they are.

    Returns:
        Numbers of modulus 1.

    Source:
        Phase unwrapping by least squares on a graph: Ghiglia & Romero, J. Opt. Soc. Am. A 11 (1994) 107.
    """
    told = np.abs(products) > 0
    (one, other), weights = ends[told].T, np.abs(products[told])
    angles = np.zeros(n_tiles)
    if len(weights):
        turned = -np.angle(products[told])  # of the other one, to agree with the first
        angles = _carried(one, other, weights, turned, n_tiles)
        rest = np.angle(np.exp(1j * (turned - (angles[other] - angles[one]))))
        angles += _settled(one, other, weights / weights.max(), rest, n_tiles)
    return np.exp(1j * angles).astype(np.complex64)


def _carried(one: np.ndarray, other: np.ndarray, weights: np.ndarray, turned: np.ndarray, n_tiles: int) -> np.ndarray:
    """Return the angle of each tile along the spanning tree of the largest weights."""
    lengths = sparse.coo_array((weights.max() / weights, (one, other)), (n_tiles, n_tiles)).tocsr()
    tree = csgraph.minimum_spanning_tree(lengths)
    steps = sparse.coo_array((turned, (one, other)), (n_tiles, n_tiles)).tocsr()
    _, parts = csgraph.connected_components(tree, directed=False)
    angles = np.zeros(n_tiles)
    for root in np.unique(parts, return_index=True)[1]:
        order, before = csgraph.breadth_first_order(tree, root, directed=False)
        for tile in order[1:]:
            angles[tile] = angles[before[tile]] + steps[before[tile], tile] - steps[tile, before[tile]]
    return angles


def _settled(one: np.ndarray, other: np.ndarray, weights: np.ndarray, rest: np.ndarray, n_tiles: int) -> np.ndarray:
    """Return the angles whose differences are closest to the rest, with those of the first tiles of all parts 0."""
    links = np.arange(len(rest))
    signs = np.concatenate([-np.ones(len(rest)), np.ones(len(rest))])
    differences = sparse.coo_array(
        (signs, (np.concatenate([links, links]), np.concatenate([one, other]))), (len(rest), n_tiles)
    ).tocsr()
    laplacian = (differences.T @ sparse.diags_array(weights) @ differences).tocsr()
    _, parts = csgraph.connected_components(laplacian, directed=False)
    free = np.ones(n_tiles, bool)
    free[np.unique(parts, return_index=True)[1]] = False
    angles = np.zeros(n_tiles)
    if free.any():
        kept = laplacian[free][:, free].tocsc()
        angles[free] = np.asarray(linalg.spsolve(kept, (differences.T @ (weights * rest))[free]))
    return angles
