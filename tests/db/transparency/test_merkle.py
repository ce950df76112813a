"""The Merkle tree against Certificate Transparency's known roots and a definition written down naively."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.transparency.merkle import EMPTY_ROOT, Frontier, inclusion_paths, leaf_hash, node_hash, root_from_path

# The leaves and roots that implementations of RFC 6962 and RFC 9162 test themselves with.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 9162, 2.1.3.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*path(index, leaves[:k]), tree_hash(leaves[k:])]
    return [*path(index - k, leaves[k:]), tree_hash(leaves[:k])]


def grown(leaves: list[bytes]) -> Frontier:
    tree = Frontier()
    tree.extend(leaves)
    return tree


def test_known_roots() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256().digest()
    for size, root in enumerate(ROOTS, start=1):
        assert grown(LEAVES[:size]).root().hex() == root


data = st.lists(st.binary(max_size=40), max_size=70)


@given(data, st.integers(0, 70))
def test_a_tree_continued_from_its_frontier_is_the_same_tree(leaves: list[bytes], cut: int) -> None:
    first = grown(leaves[:cut])
    again = Frontier(first.size, first.roots)
    again.extend(leaves[cut:])
    assert again.root() == tree_hash(leaves)
    assert (again.size, len(again.roots)) == (len(leaves), len(leaves).bit_count())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70), st.data())
def test_inclusion_paths_are_those_of_the_standard_and_lead_to_the_root(
    leaves: list[bytes], draw: st.DataObject
) -> None:
    indexes = draw.draw(st.lists(st.integers(0, len(leaves) - 1), max_size=5))
    found = inclusion_paths(indexes, iter(leaves), len(leaves))
    assert found == [path(index, leaves) for index in indexes]
    for index, nodes in zip(indexes, found, strict=True):
        assert root_from_path(index, len(leaves), leaves[index], nodes) == tree_hash(leaves)


@given(st.lists(st.binary(max_size=40), min_size=2, max_size=70), st.data())
def test_a_path_that_was_tampered_with_leads_elsewhere(leaves: list[bytes], draw: st.DataObject) -> None:
    size, root = len(leaves), tree_hash(leaves)
    index = draw.draw(st.integers(0, size - 1))
    nodes = path(index, leaves)
    at = draw.draw(st.integers(0, len(nodes) - 1))
    bit = draw.draw(st.integers(0, 255))
    flipped = bytearray(nodes[at])
    flipped[bit // 8] ^= 1 << bit % 8
    assert root_from_path(index, size, leaves[index], [*nodes[:at], bytes(flipped), *nodes[at + 1 :]]) != root
    assert root_from_path(index, size, leaves[index] + b"x", nodes) != root
    for wrong in (nodes[:-1], [*nodes, nodes[0]]):
        with pytest.raises(ValueError, match="path is too"):
            root_from_path(index, size, leaves[index], wrong)


def test_what_makes_no_tree() -> None:
    with pytest.raises(ValueError, match="1 subtree roots do not make a tree of 3 leaves"):
        Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="do not make a tree of 1 leaves"):
        Frontier(1, [bytes(31)])
    with pytest.raises(ValueError, match="leaf 2 is not in a tree of 2 leaves"):
        inclusion_paths([2], LEAVES, 2)
    with pytest.raises(ValueError, match="leaf 2 is not in a tree of 2 leaves"):
        root_from_path(2, 2, b"", [])
    with pytest.raises(ValueError, match="there are only 8 leaves, not 9"):
        inclusion_paths([0], LEAVES, 9)
