"""Signing a report: with a file or a token, with and without an authority, one after another."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11 import Attribute
from pkcs11.util.rsa import decode_rsa_private_key
from pkcs11.util.x509 import decode_x509_certificate
from pyhanko.pdf_utils.reader import PdfFileReader

from reports.errors import ReportError
from reports.signatures.keys import Pkcs12Key, TokenKey, describe_key, name_of
from reports.signatures.read import read_signatures
from reports.signatures.sign import Act, Profile, check_profile, read_certificates, seal, sign_off
from tests.pki import PASSPHRASE, Issued, Pki, StampServer
from tests.reports import verapdf

ISSUED = Act("issued by the inspection", location="Plant 1")
REVIEWED = Act("reviewed: accept", name="Jane Doe")


@pytest.fixture(scope="module")
def key(pki: Pki) -> Pkcs12Key:
    return Pkcs12Key(pki.seal, PASSPHRASE)


@pytest.fixture(scope="module")
def own(pki: Pki) -> Pkcs12Key:
    return Pkcs12Key(pki.person, PASSPHRASE)


@pytest.fixture(scope="module")
def lasting(pki: Pki, stamp_server: StampServer) -> Profile:
    return Profile("B-LTA", stamp_server.url, (pki.root_pem,), (pki.revocations,))


def names(pdf: bytes) -> list[str]:
    return [each.field_name for each in PdfFileReader(io.BytesIO(pdf)).embedded_signatures]


def test_signatures_are_added_after_bytes_that_stay(
    report_pdf: bytes, key: Pkcs12Key, own: Pkcs12Key
) -> None:
    sealed = seal(report_pdf, key, Profile(), ISSUED)
    assert sealed.startswith(report_pdf)
    signed = sign_off(sign_off(sealed, own, Profile(), REVIEWED), key, Profile(), Act("approved"))
    assert signed.startswith(sealed)
    assert names(signed) == ["kensa-seal", "kensa-signoff-1", "kensa-signoff-2"]
    reader = PdfFileReader(io.BytesIO(signed))
    first, second, _ = reader.embedded_signatures
    assert first.sig_object["/SubFilter"] == "/ETSI.CAdES.detached"
    assert (first.sig_object["/Reason"], first.sig_object["/Location"]) == (ISSUED.reason, "Plant 1")
    assert second.sig_object["/Name"] == "Jane Doe"
    assert reader.root.get("/Version", "/1.7") == "/1.7", "PDF/A-3 is PDF 1.7"


def test_a_seal_is_the_first_signature_and_the_only_seal(report_pdf: bytes, key: Pkcs12Key) -> None:
    sealed = seal(report_pdf, key, Profile(), ISSUED)
    with pytest.raises(ReportError, match="bears a signature already"):
        seal(sealed, key, Profile(), ISSUED)


def test_more_sign_offs_than_fields_were_prepared(report_pdf: bytes, key: Pkcs12Key) -> None:
    pdf = seal(report_pdf, key, Profile(), ISSUED)
    for _ in range(5):
        pdf = sign_off(pdf, key, Profile(), REVIEWED)
    assert names(pdf)[-1] == "kensa-signoff-5"
    assert [c for c in read_signatures(pdf).checks if c.outcome == "broken"] == []


def test_a_sign_off_without_a_seal(report_pdf: bytes, key: Pkcs12Key) -> None:
    assert names(sign_off(report_pdf, key, Profile(), REVIEWED)) == ["kensa-signoff-1"]


def test_a_signature_with_the_time_from_an_authority(
    report_pdf: bytes, key: Pkcs12Key, pki: Pki, stamp_server: StampServer
) -> None:
    found = read_signatures(
        seal(report_pdf, key, Profile("B-T", stamp_server.url), ISSUED), read_certificates([pki.root_pem])
    )
    (sealed,) = found.found
    assert (sealed.stamped, sealed.trusted, sealed.intact) == (True, True, True)
    assert "whether it was revoked is not in the file" in found.checks[-1].message


def test_a_lasting_signature_and_a_lasting_sign_off(
    report_pdf: bytes, key: Pkcs12Key, own: Pkcs12Key, pki: Pki, lasting: Profile
) -> None:
    pdf = sign_off(seal(report_pdf, key, lasting, ISSUED), own, lasting, REVIEWED)
    assert names(pdf) == ["kensa-seal", "kensa-seal-time", "kensa-signoff-1", "kensa-signoff-1-time"]
    roots = read_certificates([pki.root_pem])
    found = read_signatures(pdf, roots)
    assert {c.outcome for c in found.checks} == {"ok"}
    # When the certificates of signer and authority have expired, the later stamps still tell when they held:
    # all but the last, which somebody was to renew.
    later = read_signatures(pdf, roots, now=datetime.now(UTC) + timedelta(days=400))
    open_ = {c.what: c.message for c in later.checks if c.outcome != "ok"}
    assert (
        "'Test time stamps', or one above it, had expired"
        in (open_["time-stamp authority of time stamp kensa-signoff-1-time"])
    )
    assert not any(c.outcome == "broken" for c in later.checks)
    assert all(each.intact for each in later.found)


def test_a_time_stamp_proves_that_a_certificate_had_not_expired(
    report_pdf: bytes, pki: Pki, stamp_server: StampServer, lasting: Profile
) -> None:
    roots = read_certificates([pki.root_pem])
    brief = Pkcs12Key(pki.pkcs12("brief", pki.issue("Brief seal", days=(-2, 5))), PASSPHRASE)
    then = datetime.now(UTC) + timedelta(days=10)
    for profile, trusted in ((Profile(), None), (Profile("B-T", stamp_server.url), True), (lasting, True)):
        found = read_signatures(seal(report_pdf, brief, profile, ISSUED), roots, now=then)
        assert found.found[0].trusted is trusted
        assert {c.outcome for c in found.checks} <= {"ok", "not checked"}


def test_what_an_authority_may_do_wrong(
    report_pdf: bytes, key: Pkcs12Key, pki: Pki, stamp_server: StampServer
) -> None:
    with socket.socket() as silent, socket.socket() as closed:
        for each in (silent, closed):
            each.bind(("127.0.0.1", 0))
        silent.listen()
        ports = {"closed": closed.getsockname()[1], "silent": silent.getsockname()[1]}
        for where, expected in {
            stamp_server.url + "refuse": "gave no time stamp",
            stamp_server.url + "garbage": "gave no time stamp",
            stamp_server.url + "page": "gave no time stamp: .*response is malformed",
            stamp_server.url + "other": "answered with a stamp of something else",
            f"http://127.0.0.1:{ports['closed']}": "gave no time stamp: .*ConnectionError",
            f"http://127.0.0.1:{ports['silent']}": "gave no time stamp: .*ReadTimeout",
        }.items():
            with pytest.raises(ReportError, match=expected) as raised:
                seal(report_pdf, key, Profile("B-T", where, timeout=0.3), ISSUED)
            assert where in str(raised.value)


def test_nothing_but_the_authority_is_contacted(
    report_pdf: bytes,
    key: Pkcs12Key,
    lasting: Profile,
    stamp_server: StampServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[object] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: object) -> None:
        called.append(address)
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", watched)
    seal(report_pdf, key, Profile(), ISSUED)
    assert called == []
    seal(report_pdf, key, lasting, ISSUED)
    assert set(called) == {("127.0.0.1", stamp_server.server_port)}


def test_keys_that_do_not_open(pki: Pki, tmp_path: Path) -> None:
    old = pki.pkcs12("old", pki.issue("Old seal", days=(-20, -10)))
    wrong = pki.pkcs12("authority", pki.issue("Not to sign", authority=True))
    (tmp_path / "text.p12").write_text("no")
    for key, expected in {
        Pkcs12Key(pki.seal, "other"): "the passphrase is wrong",
        Pkcs12Key(pki.seal): "it may need a passphrase",
        Pkcs12Key(tmp_path / "none.p12"): "cannot be read: No such file",
        Pkcs12Key(tmp_path / "text.p12"): "cannot be opened as PKCS#12",
        Pkcs12Key(old, PASSPHRASE): "valid from .* only: renew it",
        Pkcs12Key(wrong, PASSPHRASE): "is not one to sign documents with",
    }.items():
        with pytest.raises(ReportError, match=expected) as raised:
            describe_key(key)
        assert PASSPHRASE not in str(raised.value)
        assert PASSPHRASE not in repr(key)


def test_roots_and_revocation_lists_that_do_not_fit(
    report_pdf: bytes, key: Pkcs12Key, pki: Pki, tmp_path: Path, stamp_server: StampServer
) -> None:
    other = Pki(tmp_path / "other", "Other root")
    (tmp_path / "no.pem").write_text("no")
    lasting = Profile("B-LTA", stamp_server.url, (pki.root_pem,), (pki.revocations,))
    for profile, expected in {
        Profile(trust_roots=(other.root_pem,)): "do trust_roots and crls fit",
        replace(lasting, crls=(other.revocations,)): "do trust_roots and crls fit",
        replace(lasting, trust_roots=()): "B-LTA take trust_roots",
        replace(lasting, timestamp_url=None): "take a time-stamp authority: timestamp_url",
        Profile(trust_roots=(tmp_path / "no.pem",)): "expected certificates in PEM or DER",
        Profile(trust_roots=(tmp_path / "none.pem",)): "cannot be read: No such file",
        replace(lasting, crls=(tmp_path / "no.pem",)): "expected certificate revocation lists",
    }.items():
        with pytest.raises(ReportError, match=expected):
            seal(report_pdf, key, profile, ISSUED)
    for broken in (replace(lasting, crls=(tmp_path / "no.pem",)), Profile("B-T")):
        with pytest.raises(ReportError):
            check_profile(broken)


def test_a_revoked_certificate_signs_nothing(report_pdf: bytes, pki: Pki, stamp_server: StampServer) -> None:
    revoked = pki.issue("Revoked seal")
    lists = (pki.revoke("revoked.crl", revoked),)
    profile = Profile("B-LTA", stamp_server.url, (pki.root_pem,), lists)
    with pytest.raises(ReportError, match="revoked"):
        seal(report_pdf, Pkcs12Key(pki.pkcs12("revoked", revoked), PASSPHRASE), profile, ISSUED)


def test_text_from_outside_stays_text(report_pdf: bytes, key: Pkcs12Key) -> None:
    hostile = "lot\u202e)(<\x00>> endobj " + "x" * 10_000
    pdf = sign_off(report_pdf, key, Profile(), Act(hostile, name="\x07Jane", location="\\)"))
    (found,) = read_signatures(pdf).found
    assert found.intact
    assert found.name == "‹U+0007›Jane"
    assert found.location == "\\)"
    assert found.reason is not None
    assert found.reason.startswith("lot‹U+202E›)(<‹U+0000›>> endobj xxx")
    assert len(found.reason) < 600


SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture(scope="module")
def token(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenKey]:
    """A key on a SoftHSM token of our own, and somebody else's certificate beside it."""
    if not SOFTHSM.exists() or shutil.which("softhsm2-util") is None:
        if os.environ.get("CI"):
            pytest.fail("SoftHSM is absent: apt-get install softhsm2")
        pytest.skip("SoftHSM is absent: apt-get install softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        label = "kensa"
        command = f"softhsm2-util --init-token --free --label {label} --so-pin 87654321 --pin 1234"
        subprocess.run(command.split(), check=True, capture_output=True)
        held = pki.issue("Plant 3 seal", key=rsa.generate_private_key(65537, 2048))
        with pkcs11.lib(str(SOFTHSM)).get_token(token_label=label).open(rw=True, user_pin="1234") as session:
            session.create_object(
                decode_rsa_private_key(_pkcs1(held)) | {Attribute.LABEL: "seal", Attribute.TOKEN: True}
            )
            certificates = {"seal": held.der, "root": pki.root.der, "other": pki.issue("John Roe").der}
            for label, der in certificates.items():
                session.create_object(
                    decode_x509_certificate(der) | {Attribute.LABEL: label, Attribute.TOKEN: True}
                )
        yield TokenKey(SOFTHSM, "kensa", "seal", "seal", "1234")


def _pkcs1(issued: Issued) -> bytes:
    return bytes(issued.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


def test_a_key_on_a_token(report_pdf: bytes, token: TokenKey, pki: Pki) -> None:
    assert describe_key(token).subject == "Plant 3 seal"
    pdf = seal(report_pdf, token, Profile(), ISSUED)
    found = read_signatures(pdf, read_certificates([pki.root_pem]))
    assert [c.line() for c in found.checks if c.outcome == "broken"] == []
    assert found.found[0].trusted
    (signature,) = PdfFileReader(io.BytesIO(pdf)).embedded_signatures
    others = [name_of(each) for each in signature.other_embedded_certs]
    assert others == ["Test root"], "the certificate of somebody else stays on the token"


def test_a_token_that_does_not_open(token: TokenKey, tmp_path: Path) -> None:
    other = "other"
    for wrong, expected in {
        replace(token, pin="9999"): "the PIN is wrong",
        replace(token, token=other): "token other: cannot be opened",
        replace(token, certificate="none"): "holds 0 objects certificate 'none'",
        replace(token, key="none"): "holds 0 objects private key 'none'",
        replace(token, module=tmp_path / "none.so"): "cannot be opened",
    }.items():
        with pytest.raises(ReportError, match=expected) as raised:
            describe_key(wrong)
        assert str(wrong.pin) not in str(raised.value)
    assert "1234" not in repr(token)


@verapdf.needed
@pytest.mark.slow
def test_a_report_with_every_kind_of_signature_conforms(
    report_pdf: bytes, key: Pkcs12Key, own: Pkcs12Key, lasting: Profile
) -> None:
    signed = sign_off(seal(report_pdf, key, lasting, ISSUED), own, lasting, REVIEWED)
    assert verapdf.violations(signed, "3u", "ua1") == []
