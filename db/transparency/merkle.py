"""The Merkle tree over the audit log, hashed as RFC 9162 says: grown leaf by leaf, proofs made in one pass.

Leaf n is the SHA-256 hash of event n + 1, as 32 raw bytes. That hash covers the event's whole record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows: its size, and the roots of its perfect subtrees from left to right.

    A tree of `size` leaves has one perfect subtree for each bit of `size` that is 1, the largest first.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != 32 for root in roots):
            raise ValueError(f"{len(roots)} subtree roots do not make a tree of {size} leaves")
        self.size = size
        self.roots = list(roots)

    def append(self, data: bytes) -> None:
        """Add a leaf at the right."""
        node, size = leaf_hash(data), self.size
        # As in adding 1 to a binary number, each 1 at the end is a subtree that is merged into the next.
        while size & 1:
            node = node_hash(self.roots.pop(), node)
            size >>= 1
        self.roots.append(node)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves at the right."""
        for data in leaves:
            self.append(data)

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves so far."""
        return _folded_root(self.roots) if self.roots else EMPTY_ROOT


def inclusion_paths(indexes: Sequence[int], leaves: Iterable[bytes], size: int) -> list[list[bytes]]:
    """Return the audit path of each of these leaves in the tree of the first `size` (RFC 9162, 2.1.3.1).

    The leaves are read once, in order, and not kept.

    Raises:
        ValueError: an index lies outside of the tree, or there are fewer leaves than `size`.
    """
    paths = [_sibling_ranges(index, size) for index in indexes]
    # The perfect subtrees, as ranges of leaves, whose roots the paths are made of. They are filled in below.
    wanted = {part: b"" for path in paths for sibling in path for part in _perfect_subtrees(*sibling)}
    stack: list[tuple[int, bytes]] = []
    position = 0
    for data in islice(leaves, size):
        start, node, position = position, leaf_hash(data), position + 1
        while True:
            if (start, position) in wanted:
                wanted[start, position] = node
            # As many merges as the new size has zero bits at its end.
            if (position - start) & position:
                break
            start, left = stack.pop()
            node = node_hash(left, node)
        stack.append((start, node))
    if position < size:
        raise ValueError(f"there are only {position} leaves, not {size}")
    return [
        [_folded_root([wanted[part] or b"" for part in _perfect_subtrees(*sibling)]) for sibling in path]
        for path in paths
    ]


def _folded_root(roots: Sequence[bytes]) -> bytes:
    """Return the root over perfect subtrees, which are given the largest first."""
    node = roots[-1]
    for left in reversed(roots[:-1]):
        node = node_hash(left, node)
    return node


def _perfect_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Cut a range of leaves that begins where a subtree begins into perfect subtrees, the largest first."""
    found = []
    while start < end:
        width = 1 << (end - start).bit_length() - 1
        found.append((start, start + width))
        start += width
    return found


def _sibling_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges of leaves under a path's nodes, from the leaf's sibling up to a child of the root."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    found = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    return found[::-1]


def root_from_path(index: int, size: int, data: bytes, path: Sequence[bytes]) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162, 2.1.3.2).

    The proof holds if this is the root of the tree.

    Raises:
        ValueError: the index lies outside of the tree, or the path has another length than this leaf's.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    node, number, last = leaf_hash(data), index, size - 1
    for sibling in path:
        if last == 0:
            raise ValueError("the path is too long")
        if number & 1 or number == last:
            node = node_hash(sibling, node)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        number >>= 1
        last >>= 1
    if last:
        raise ValueError("the path is too short")
    return node
