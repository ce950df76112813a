"""Corrects WeasyPrint's tag tree to what PDF/UA-1 and PDF/A-3 ask for."""

from collections.abc import Iterator
from typing import Any

import pydyf

from reports.errors import ReportError

ADDRESS = "kensa:#"  # begins the address of an element of the document, in whatever block it lies
# Elements that may hold text themselves, without a span for each piece.
_TEXT = {"/P", "/H1", "/H2", "/H3", "/H4", "/TD", "/TH", "/LBody", "/Lbl", "/Caption", "/Link", "/Span"}
_PRINTED = 4  # annotation flag: print (PDF/A-3, 6.3.2)


def tidy(_document: Any, pdf: Any) -> None:
    """Correct a `pydyf.PDF` before WeasyPrint writes it (WeasyPrint's `finisher`).

    Wrappers that say nothing are left out. Running heads and feet become artifacts. Header cells get their
    scope. A link keeps one annotation, that of its Link element, and leads to a named destination.

    Raises:
        ReportError: a link leads out of the document.
    """
    for drawn in pdf.objects:
        if isinstance(drawn, pydyf.Stream) and drawn.extra.get("Subtype") == "/Image":
            drawn.extra["Interpolate"] = "false"  # ISO 19005-3, 6.2.8
    for made_again in ("Names", "Outlines"):  # `join` makes them for all blocks
        pdf.catalog.pop(made_again, None)
    tree = _Tree(pdf)
    tree.flatten()
    elements = dict(tree.walk())
    tree.mark_artifacts(elements)
    for element in elements.values():
        if element["S"] == "/TR":
            cells = [elements[kid] for kid in tree.kids(element)]
            mixed = any(cell["S"] == "/TD" for cell in cells)
            for cell in cells:
                _set_scope(cell, "/Row" if mixed else "/Column")
    kept = tree.keep_annotations_of_links(elements)
    for page in tree.pages:
        if "Annots" in page:
            page["Annots"][:] = [each for each in page["Annots"] if _number(each) in kept]
    for number in kept:
        _lead_inside(pdf.objects[number])


class _Tree:
    """The tag tree of a `pydyf.PDF`; an element is named by its object number."""

    def __init__(self, pdf: Any) -> None:
        self._objects = pdf.objects
        self._page_numbers = pdf.pages["Kids"][::3]  # a reference is three items: number, generation, "R"
        self.pages = [pdf.objects[number] for number in self._page_numbers]
        self._root = self._at(pdf.catalog["StructTreeRoot"])
        self._parents = self._at(self._root["ParentTree"])["Nums"]

    def walk(self) -> Iterator[tuple[int, Any]]:
        """Yield every element that hangs in the tree, with its number."""
        waiting = [_number(kid) for kid in self._root["K"]]
        while waiting:
            number = waiting.pop()
            yield number, self._objects[number]
            waiting.extend(self.kids(self._objects[number]))

    def kids(self, element: Any) -> list[int]:
        """Return the elements right under one, without marked content and annotations."""
        return [number for number in self._references(element) if "S" in self._objects[number]]

    def flatten(self) -> None:
        """Leave out wrappers that say nothing: a third of the elements, and of the tree's bytes."""
        page_of = {number: index for index, number in enumerate(self._page_numbers)}
        above = {kid: number for number, element in self.walk() for kid in self.kids(element)}
        for number in reversed(list(above)):
            element, parent = self._objects[number], self._objects[above[number]]
            marked = [kid for kid in element["K"] if isinstance(kid, int)]
            wraps = element["S"] == "/NonStruct" or (element["S"] == "/Span" and "Alt" not in element)
            fits = not marked or (parent["S"] in _TEXT and parent.get("Pg") == element["Pg"])
            held = any("Obj" in self._objects[each] for each in self._references(element))
            if not wraps or not fits or held:
                continue
            owners = self._parents[2 * page_of[_number(element["Pg"])] + 1]
            for mcid in marked:
                owners[mcid] = parent.reference
            for kid in self._references(element):
                self._objects[kid]["P"] = parent.reference
            at = next(
                i for i, kid in enumerate(parent["K"]) if not isinstance(kid, int) and _number(kid) == number
            )
            parent["K"][at : at + 1] = element["K"]

    def mark_artifacts(self, elements: dict[int, Any]) -> None:
        """Make artifacts of what is tagged outside the tree, which are WeasyPrint's margin boxes."""
        for index, page in enumerate(self.pages):
            owners = self._parents[2 * index + 1]
            strays = {mcid for mcid, owner in enumerate(owners) if _number(owner) not in elements}
            for mcid in strays:
                owners[mcid] = "null"
            drawn = self._at(page["Contents"]).stream
            for at, item in enumerate(drawn):
                if isinstance(item, pydyf.Dictionary) and item.get("MCID") in strays:
                    drawn[at - 1 : at + 1] = ["/Artifact", pydyf.Dictionary({"Type": "/Pagination"})]

    def keep_annotations_of_links(self, elements: dict[int, Any]) -> list[int]:
        """Leave out annotations of what lies inside a link: the link's own covers it.

        Returns:
            The object numbers of the annotations that are kept, in order.
        """
        kept: list[int] = []
        for element in elements.values():
            held = {n: self._number_held(n) for n in self._references(element) if "Obj" in self._objects[n]}
            if element["S"] == "/Link":
                kept.extend(held.values())
            elif held:
                element["K"][:] = [
                    kid for kid in element["K"] if isinstance(kid, int) or _number(kid) not in held
                ]
        first = 2 * len(self.pages)  # pairs of the parent tree: pages, then annotations
        left = [
            (key, owner)
            for key, owner in zip(self._parents[first::2], self._parents[first + 1 :: 2], strict=True)
            if elements.get(_number(owner), {}).get("S") == "/Link"
        ]
        self._parents[first:] = [item for pair in left for item in pair]
        return sorted(kept)

    def _references(self, element: Any) -> list[int]:
        return [_number(kid) for kid in element["K"] if not isinstance(kid, int)]

    def _number_held(self, number: int) -> int:
        return _number(self._objects[number]["Obj"])

    def _at(self, reference: Any) -> Any:
        return self._objects[_number(reference)]


def _number(reference: Any) -> int:
    return int(reference.split()[0])


def _set_scope(cell: Any, scope: str) -> None:
    # A cell may name its headers by id, and WeasyPrint's ids are unique in one block alone. The scope of the
    # header cells says the same.
    cell.pop("ID", None)
    if "A" in cell:
        cell["A"].pop("Headers", None)
        if cell["S"] == "/TH":
            cell["A"]["Scope"] = scope


def _lead_inside(annotation: Any) -> None:
    annotation["F"] = _PRINTED
    if action := annotation.pop("A", None):
        target = action["URI"].string
        if not target.startswith(ADDRESS):
            raise ReportError(f"a link leads to {target[:200]!r}; links of a report lead to its own pages")
        annotation["Dest"] = pydyf.String(target.removeprefix(ADDRESS))
