"""Judges what was done to a PDF after it was signed: what signing itself does, or something else.

An update to a PDF follows the bytes that were signed and may replace any object in them. Each update is
compared with the few changes that another signature, a time stamp or data for checking them need. Everything
else counts as a change of the document. That is stricter than the standard's second level (ISO 32000-2,
DocMDP: filling in forms and signing): nothing visible may be added, and no title or author may change.

Only the objects that an update writes are read, so a long report takes no longer. pyHanko's own comparison
(`StandardDiffPolicy`) reads every object for each update: docs/reports.md has the figures.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pyhanko.pdf_utils.generic import DictionaryObject, IndirectObject, Reference
from pyhanko.pdf_utils.metadata.xmp_xml import MetadataStream
from pyhanko.pdf_utils.reader import HistoricalResolver, PdfFileReader
from pyhanko.sign.diff_analysis import DSSCompareRule, SuspiciousModification
from pyhanko.sign.diff_analysis.commons import compare_key_refs

# Keys that an update may change: in the catalogue, the form, a field that is signed, the information
# dictionary and the XMP packet (by local name). All others must stay.
_CATALOG = frozenset({"/AcroForm", "/DSS", "/Extensions", "/Metadata", "/Version"})
_FORM = frozenset({"/Fields", "/SigFlags", "/DR", "/DA", "/NeedAppearances"})
_FIELD = frozenset({"/V", "/Type", "/F", "/Ff", "/AP", "/DA", "/MK"})
_INFO = frozenset({"/ModDate", "/Producer"})
_XMP = frozenset({"ModifyDate", "MetadataDate", "Producer"})
_NO_STORE = DictionaryObject()  # type: ignore[no-untyped-call]


class Update:
    """One update of a file, by the number of the revision that it made."""

    def __init__(self, reader: PdfFileReader, revision: int) -> None:
        self._reader: Any = reader
        self._revision = revision
        self._old: HistoricalResolver = reader.get_historical_resolver(revision - 1)
        self._new: HistoricalResolver = reader.get_historical_resolver(revision)
        self._allowed: set[tuple[int, int]] = set()
        self.fields: list[str] = []
        """Names of the signature fields that it added or filled in; known once `problem` was asked."""

    @cached_property
    def problem(self) -> str | None:
        """The first change in it that signing does not make; None if there is none."""
        return next(self._problems(), None)

    def _problems(self) -> Iterator[str]:
        if self._reader.xrefs.refs_freed_in_revision(self._revision):
            yield "an object was deleted"
        old, new = self._old.trailer_view, self._new.trailer_view
        if old.raw_get("/Root") != new.raw_get("/Root") or "/Encrypt" in new:
            yield "the document was replaced"
        yield from self._catalog_problems()
        yield from self._form_problems()
        yield from self._store_problems()
        yield from self._description_problems()
        written = self._reader.xrefs.explicit_refs_in_revision(self._revision)
        for reference in sorted(written, key=lambda each: each.idnum):
            if self._old.is_ref_unassignable(reference):
                continue  # a new object, which no old and unchanged one refers to
            if (reference.idnum, reference.generation) not in self._allowed:
                yield f"object {reference.idnum} was replaced, which belongs to what was signed"

    def _catalog_problems(self) -> Iterator[str]:
        self._allow(self._new.root_ref)
        yield from _differences("the catalogue", self._old.root, self._new.root, _CATALOG)

    def _form_problems(self) -> Iterator[str]:
        """Compare the form: it may have more signature fields, or empty ones filled in, all invisible."""
        before = self._old_value(self._old.root, self._new.root, "/AcroForm", {})
        after = _value(self._new.root, "/AcroForm", {})
        yield from _differences("the form", before, after, _FORM)
        old = self._old_value(before, after, "/Fields", [])
        new = _value(after, "/Fields", [])
        if list(new)[: len(old)] != list(old):
            yield "a field of the form was removed"
        for position, entry in enumerate(list(new)):
            yield from self._field_problems(entry, known=position < len(old))

    def _field_problems(self, entry: Any, *, known: bool) -> Iterator[str]:
        if not isinstance(entry, IndirectObject):
            yield "a field of the form is written where it does not belong"
            return
        after = self._new(entry.reference)
        name = str(_value(after, "/T", ""))
        if known:
            before = self._old(entry.reference)
            if before == after:
                return
            if "/V" in before:
                yield f"the signature in field {name} was replaced"
            yield from _differences(f"field {name}", before, after, _FIELD)
            self._allow(entry.reference)
        if _value(after, "/FT") != "/Sig" or "/Kids" in after:
            yield f"field {name} is none for a signature"
        left, low, right, high = _value(after, "/Rect", (0, 0, 1, 1))
        if left != right and low != high:
            yield f"field {name} can be seen, and covers what was signed"
        self.fields.append(name)
        if not known:
            yield from self._page_problems(after, entry)

    def _page_problems(self, field: Any, entry: IndirectObject) -> Iterator[str]:
        """Compare the page of a new field: the field may be added to its annotations, and nothing else."""
        pointer = field.raw_get("/P") if "/P" in field else None
        page = pointer.reference if isinstance(pointer, IndirectObject) else None
        before = None if page is None else self._old(page)
        if page is None or not isinstance(before, dict) or _value(before, "/Type") != "/Page":
            yield "a new field is on no page"
            return
        after = self._new(page)
        self._allow(page)
        yield from _differences("a page", before, after, frozenset({"/Annots"}))
        old = self._old_value(before, after, "/Annots", [])
        new = _value(after, "/Annots", [])
        added = list(new)[len(old) :]
        fields = self._new.root["/AcroForm"]["/Fields"]
        if list(new)[: len(old)] != list(old) or entry not in added or any(a not in fields for a in added):
            yield "something was put on a page"

    def _store_problems(self) -> Iterator[str]:
        """Compare the store of certificates and revocation lists (DSS): it may hold nothing else."""
        try:
            # Only what the rule refuses counts here. It would also allow objects to be replaced to which the
            # store refers; that is safe only with a search of the whole file for their other uses.
            list(DSSCompareRule().apply(self._old, self._new))
            before = self._old_value(self._old.root, self._new.root, "/DSS", _NO_STORE)
            after = _value(self._new.root, "/DSS", _NO_STORE)
            for key in ("/Certs", "/CRLs", "/OCSPs", "/VRI"):
                # A list may be written again later: one of the document, such as what a page draws, must
                # not become one of the store first.
                list(compare_key_refs(key, self._old, before, after))
                self._old_value(before, after, key, None)
        except SuspiciousModification as error:
            yield f"the store of certificates holds something else: {error}"

    def _description_problems(self) -> Iterator[str]:
        """Compare title, author and the like: only the time of the change and the producer may change."""
        old, new = self._old.trailer_view, self._new.trailer_view
        if "/Info" in new:
            before = self._old_value(old, new, "/Info", {})
            yield from _differences("the document's information", before, new["/Info"], _INFO)
        if "/Metadata" in self._new.root:
            self._old_value(self._old.root, self._new.root, "/Metadata", {})
            versions = [self._xmp_of(each) for each in (self._old, self._new)]
            if versions[0] != versions[1]:
                yield "the document's metadata were changed"

    def _xmp_of(self, version: HistoricalResolver) -> list[dict[object, object]] | None:
        if "/Metadata" not in version.root:
            return None
        stream = self._reader.get_object(
            version.root.get_value_as_reference("/Metadata"), version.revision, as_metadata_stream=True
        )
        if not isinstance(stream, MetadataStream):
            return None
        return [{name: value for name, value in each if name.local_name not in _XMP} for each in stream.xmp]

    def _old_value(self, old: Any, new: Any, key: str, absent: Any) -> Any:
        """Return what a dictionary held under a key before, and allow it to be written again in its place."""
        before, after = dict(old).get(key), dict(new).get(key)
        if isinstance(before, IndirectObject) and before == after:
            self._allow(before.reference)
        if before is None:
            return absent
        return self._old(before.reference) if isinstance(before, IndirectObject) else before

    def _allow(self, reference: Reference) -> None:
        self._allowed.add((reference.idnum, reference.generation))


def _differences(what: str, old: Any, new: Any, but: frozenset[str]) -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield f"{what} is none any more"
        return
    before, after = dict(old), dict(new)  # what they hold themselves: references are not followed
    for key in sorted((before.keys() | after.keys()) - but):
        if before.get(key) != after.get(key):
            yield f"{what} has another {key}"


def _value(dictionary: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """Return what a dictionary holds under a key, with a reference resolved, as its `get` would not."""
    return dictionary[key] if key in dictionary else absent  # noqa: SIM401
