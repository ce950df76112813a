"""What a file proves by itself: whatever was changed in it, somebody notices."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pikepdf
import pytest
from asn1crypto.x509 import Certificate
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import fields
from pyhanko.sign.diff_analysis import DEFAULT_DIFF_POLICY, SuspiciousModification

from reports.signatures.keys import Pkcs12Key
from reports.signatures.sign import Act, Profile, read_certificates, seal, sign_off
from reports.signatures.verify import FileVerification, summary, verify_file
from tests.pki import PASSPHRASE, Pki, StampServer


@pytest.fixture(scope="module")
def roots(pki: Pki) -> list[Certificate]:
    return read_certificates([pki.root_pem])


@pytest.fixture(scope="module")
def key(pki: Pki) -> Pkcs12Key:
    return Pkcs12Key(pki.seal, PASSPHRASE)


@pytest.fixture(scope="module")
def small() -> bytes:
    """A one-page PDF with a manifest, small enough to be read a thousand times."""
    with pikepdf.new() as pdf:
        pdf.add_blank_page(page_size=(200, 200))
        pdf.pages[0].Contents = pdf.make_stream(b"0 0 10 10 re f")
        manifest = pikepdf.AttachedFileSpec(pdf, b'{"report": "R000001", "revision": 1}')
        pdf.attachments["kensa-audit.json"] = manifest
        pdf.docinfo["/Title"] = "Report R000001"
        out = io.BytesIO()
        pdf.save(out, static_id=True)
    return out.getvalue()


@pytest.fixture(scope="module")
def sealed(small: bytes, key: Pkcs12Key) -> bytes:
    return seal(small, key, Profile(), Act("issued"))


@pytest.fixture(scope="module")
def stamped(small: bytes, key: Pkcs12Key, pki: Pki, stamp_server: StampServer) -> bytes:
    """Sealed and signed off, with everything that a signature can bring along."""
    lasting = Profile("B-LTA", stamp_server.url, (pki.root_pem,), (pki.revocations,))
    person = Pkcs12Key(pki.person, PASSPHRASE)
    timed = Profile("B-T", stamp_server.url)
    return sign_off(seal(small, key, lasting, Act("issued")), person, timed, Act("reviewed"))


def broken(file: FileVerification) -> list[str]:
    return [check.what for check in file.checks if check.outcome == "broken"]


def intact(file: FileVerification, signatures: int) -> bool:
    return broken(file) == [] and len(file.signatures) == signatures


def test_a_signed_report_holds_and_says_who_signed(
    report_pdf: bytes, key: Pkcs12Key, pki: Pki, roots: list[Certificate]
) -> None:
    pdf = seal(report_pdf, key, Profile(), Act("issued"))
    file = verify_file("r.pdf", sign_off(pdf, Pkcs12Key(pki.person, PASSPHRASE), Profile(), Act("ok")), roots)
    assert intact(file, 2)
    assert [each.certificate.subject for each in file.signatures] == ["Plant 1 seal", "Jane Doe"]
    said = summary(file, file.checks)
    assert said.startswith(f"r.pdf is {file.title}, unchanged since 'Plant 1 seal' signed it on 20")
    assert "by the signer's own clock, and 1 more signed after that." in said
    assert "not proved" not in said
    assert file.content_digest == verify_file("plain.pdf", report_pdf).digest
    assert any(c.line().startswith("ok: attached files: the") for c in file.checks)


def test_without_roots_it_is_said_that_a_name_proves_nothing(sealed: bytes, pki: Pki, small: bytes) -> None:
    file = verify_file("r.pdf", sealed)
    assert intact(file, 1)
    assert "Whether that name is true is not proved" in summary(file, file.checks)
    alone = seal(small, Pkcs12Key(pki.self_signed, PASSPHRASE), Profile(), Act("issued"))
    (line,) = [c.line() for c in verify_file("r.pdf", alone).checks if c.what.startswith("certificate")]
    assert line.endswith("it vouches for itself, as anybody's can under any name")


def test_a_signer_that_nobody_trusted_vouches_for(small: bytes, pki: Pki, roots: list[Certificate]) -> None:
    alone = Pkcs12Key(pki.self_signed, PASSPHRASE)
    file = verify_file("r.pdf", seal(small, alone, Profile(), Act("issued")), roots)
    assert broken(file) == ["certificate of seal kensa-seal"]
    assert summary(file, file.checks).startswith("Do not rely on r.pdf")


def test_a_report_without_signature(small: bytes) -> None:
    file = verify_file("r.pdf", small)
    assert broken(file) == []
    assert file.content_digest == file.digest
    assert "it bears no signature: by itself it does not prove who issued it" in summary(file, file.checks)


def test_what_is_no_pdf() -> None:
    for data in (b"", b"%PDF-1.7 no more", b"\x00" * 1000):
        assert broken(verify_file("r.pdf", data)) == ["file"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), recent=st.booleans())
@example(where=0.999, bit=0, recent=False)
def test_a_changed_bit_is_found_wherever_it_is(
    small: bytes, stamped: bytes, roots: list[Certificate], where: float, bit: int, recent: bool
) -> None:
    """Most bits lie in what no signature signs of itself: digits, certificates, time stamps.

    Some 5,000 more were tried once, over all levels, with and without roots; none was missed.
    """
    first = len(small) if recent else 0
    changed = bytearray(stamped)
    changed[first + int(where * (len(changed) - first))] ^= 1 << bit
    assert not intact(verify_file("r.pdf", bytes(changed), roots), 3)


def test_bytes_that_are_added_or_cut_off_are_found(sealed: bytes, stamped: bytes) -> None:
    for pdf in (sealed, stamped):
        number = len(verify_file("r.pdf", pdf).signatures)
        for changed in (pdf + b"\n", pdf + b"% more\n%%EOF\n", pdf[:-1], pdf[:-7], pdf[:-300]):
            assert not intact(verify_file("r.pdf", changed), number)


def test_a_signature_that_is_cut_off_leaves_the_file_before_it(
    small: bytes, sealed: bytes, key: Pkcs12Key
) -> None:
    """Nothing in what is left tells; the record does, see tests/cli/report/test_sign.py."""
    twice = sign_off(sealed, key, Profile(), Act("reviewed"))
    assert intact(verify_file("r.pdf", twice[: len(sealed)]), 1)
    assert verify_file("r.pdf", twice[: len(small)]).signatures == ()


def page(writer: IncrementalPdfFileWriter) -> None:
    """Paint something else."""
    stream = generic.StreamObject(stream_data=b"0 0 200 200 re f")
    first = writer.root["/Pages"]["/Kids"][0]
    first["/Contents"] = writer.add_object(stream)
    writer.update_container(first)


def content(writer: IncrementalPdfFileWriter) -> None:
    """Replace the page's own stream."""
    first = writer.root["/Pages"]["/Kids"][0]
    reference = first.raw_get("/Contents").reference
    writer.objects[(reference.generation, reference.idnum)] = generic.StreamObject(stream_data=b"1 0 0 rg")


def attachment(writer: IncrementalPdfFileWriter) -> None:
    """Replace the attached manifest."""
    names = writer.root["/Names"]["/EmbeddedFiles"]["/Names"]
    holder = names[1]["/EF"]
    holder["/F"] = writer.add_object(
        generic.StreamObject(stream_data=b'{"report": "R000009", "revision": 1}')
    )
    writer.update_container(holder)


def note(writer: IncrementalPdfFileWriter) -> None:
    """Stick a note over the page."""
    first = writer.root["/Pages"]["/Kids"][0]
    pairs = {"/Type": "/Annot", "/Subtype": "/FreeText"}
    made = {generic.NameObject(k): generic.NameObject(v) for k, v in pairs.items()}
    annotation = generic.DictionaryObject(made)
    annotation["/Rect"] = generic.ArrayObject(map(generic.NumberObject, (0, 0, 200, 200)))
    writer.register_annotation(first.container_ref, writer.add_object(annotation))


def title(writer: IncrementalPdfFileWriter) -> None:
    """Call it another report."""
    writer.trailer["/Info"]["/Title"] = generic.TextStringObject("Report R000009")
    writer.update_container(writer.trailer["/Info"])


def script(writer: IncrementalPdfFileWriter) -> None:
    """Have the viewer do something when it opens the file."""
    pairs = {"/S": generic.NameObject("/JavaScript"), "/JS": generic.TextStringObject("app.alert(1)")}
    made = {generic.NameObject(k): v for k, v in pairs.items()}
    writer.root["/OpenAction"] = generic.DictionaryObject(made)
    writer.update_root()


def visible_field(writer: IncrementalPdfFileWriter) -> None:
    """Cover the page with the appearance of an empty signature field."""
    fields.append_signature_field(
        writer, fields.SigFieldSpec("other", box=(0, 0, 200, 200), empty_field_appearance=True)
    )


def removed_field(writer: IncrementalPdfFileWriter) -> None:
    """Hide the seal: take its field off the form."""
    listed = writer.root["/AcroForm"]["/Fields"]
    del listed[0]
    writer.update_container(listed)


def other_seal(writer: IncrementalPdfFileWriter) -> None:
    """Put an empty place where the seal was."""
    field = writer.root["/AcroForm"]["/Fields"][0]
    del field["/V"]
    writer.update_container(field)


def store(writer: IncrementalPdfFileWriter) -> None:
    """Keep something else among the data for checking signatures."""
    writer.root["/DSS"] = generic.DictionaryObject({generic.NameObject("/Other"): generic.NullObject()})
    writer.update_root()


def stream_in_store(writer: IncrementalPdfFileWriter) -> None:
    """Replace the page's own stream, and call it a certificate that came along."""
    content(writer)
    stream = writer.root["/Pages"]["/Kids"][0].raw_get("/Contents")
    pairs = {generic.NameObject("/Certs"): generic.ArrayObject([stream])}
    writer.root["/DSS"] = generic.DictionaryObject(pairs)
    writer.update_root()


ATTACKS = [
    page,
    content,
    attachment,
    note,
    title,
    script,
    visible_field,
    removed_field,
    other_seal,
    store,
    stream_in_store,
]


def attacked(pdf: bytes, attack: Callable[[IncrementalPdfFileWriter], None]) -> bytes:
    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    attack(writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_update_after_the_seal_is_found_even_under_another_signature(
    attack: Callable[[IncrementalPdfFileWriter], None], sealed: bytes, key: Pkcs12Key
) -> None:
    changed = attacked(sealed, attack)
    assert changed.startswith(sealed)
    assert not intact(verify_file("r.pdf", changed), 1)
    signed_over = sign_off(changed, key, Profile(), Act("reviewed"))
    assert not intact(verify_file("r.pdf", signed_over), 2), "who signs later does not make it whole again"


def test_what_a_page_draws_is_not_replaced_by_way_of_the_store(small: bytes, key: Pkcs12Key) -> None:
    """One update calls the page's streams certificates that came along, the next one replaces them."""

    def name_streams(writer: IncrementalPdfFileWriter) -> None:
        drawn = writer.root["/Pages"]["/Kids"][0].raw_get("/Contents")
        writer.root["/DSS"] = generic.DictionaryObject({generic.NameObject("/Certs"): drawn})
        writer.update_root()

    def replace_streams(writer: IncrementalPdfFileWriter) -> None:
        drawn = writer.root["/DSS"]["/Certs"]
        drawn[0] = writer.add_object(generic.StreamObject(stream_data=b"0 0 200 200 re f"))
        writer.update_container(drawn)

    with pikepdf.open(io.BytesIO(small)) as pdf:
        pdf.pages[0].Contents = pdf.make_indirect(pikepdf.Array([pdf.pages[0].Contents]))
        out = io.BytesIO()
        pdf.save(out)
    changed = attacked(seal(out.getvalue(), key, Profile(), Act("issued")), name_streams)
    assert broken(verify_file("r.pdf", changed)) == ["changes after seal kensa-seal"]
    changed = attacked(changed, replace_streams)
    assert broken(verify_file("r.pdf", changed)) == ["changes after seal kensa-seal"]


def suspicious(pdf: bytes) -> bool:
    """What pyHanko's own comparison says of the file after its first signature; slow, and more lenient."""
    reader = PdfFileReader(io.BytesIO(pdf))
    first = reader.embedded_signatures[0]
    found = DEFAULT_DIFF_POLICY.review_file(reader, first.signed_revision, doc_mdp=first.docmdp_level)
    return isinstance(found, SuspiciousModification)


def test_pyhanko_agrees_about_what_is_allowed(sealed: bytes, stamped: bytes, key: Pkcs12Key) -> None:
    for pdf in (sealed, stamped, sign_off(sealed, key, Profile(), Act("reviewed"))):
        assert not suspicious(pdf)
        assert broken(verify_file("r.pdf", pdf)) == []
    for attack in (page, content, attachment, note, script, store, stream_in_store):
        assert suspicious(attacked(sealed, attack))


def test_a_file_that_was_changed_between_two_signatures(sealed: bytes, key: Pkcs12Key) -> None:
    twice = sign_off(sealed, key, Profile(), Act("reviewed"))
    changed = twice.replace(b"(Report R000001)", b"(Report R000009)", 1)
    assert len(changed) == len(twice)
    file = verify_file("r.pdf", changed)
    assert broken(file) == ["seal kensa-seal", "sign-off kensa-signoff-1"]
    assert not any(each.intact for each in file.signatures)


def test_a_replaced_attachment_is_found_without_any_signature(report_pdf: bytes) -> None:
    with pikepdf.open(io.BytesIO(report_pdf)) as pdf:
        name = next(name for name in pdf.attachments if name != "kensa-audit.json")
        pdf.attachments[name] = pikepdf.AttachedFileSpec(pdf, b"{}", filename=name)
        out = io.BytesIO()
        pdf.save(out)
    assert broken(verify_file("r.pdf", out.getvalue())) == ["attached files"]


def test_a_seal_that_is_taken_from_another_report(small: bytes, sealed: bytes) -> None:
    """The bytes after a report, put after another of the same length."""
    other = small.replace(b"R000001", b"R000002")
    assert len(other) == len(small)
    assert "seal kensa-seal" in broken(verify_file("r.pdf", other + sealed[len(small) :]))


def test_lines_for_people(sealed: bytes, tmp_path: Path) -> None:
    lines = [check.line() for check in verify_file("r.pdf", sealed).checks]
    assert lines[0] == "ok: seal kensa-seal: by 'Plant 1 seal'; what it signs is unchanged"
    assert lines[1] == "ok: changes after seal kensa-seal: nothing follows it"
    assert lines[2].startswith("not checked: time of seal kensa-seal, because no authority stamped it; 20")
