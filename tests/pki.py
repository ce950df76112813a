"""A small public-key infrastructure for tests: a root, keys under it, a time-stamp authority on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from asn1crypto import keys as asn1_keys
from asn1crypto import tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyhanko.sign.timestamps.dummy_client import DummyTimeStamper

PASSPHRASE = "correct horse battery"  # noqa: S105 - of made-up keys
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class Pki:
    """Files of one infrastructure in a folder; keys are made when first asked for."""

    def __init__(self, folder: Path, name: str = "Test root") -> None:
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def root(self) -> Issued:
        return self.issue(self.name, authority=True)

    @cached_property
    def root_pem(self) -> Path:
        return self._write("root.pem", self.root.certificate.public_bytes(Encoding.PEM))

    @cached_property
    def authority(self) -> Issued:
        # The stamper of pyHanko signs with RSA only.
        key = rsa.generate_private_key(65537, 2048)
        return self.issue("Test time stamps", purpose=ExtendedKeyUsageOID.TIME_STAMPING, key=key)

    @cached_property
    def seal(self) -> Path:
        return self.pkcs12("seal", self.issue("Plant 1 seal"))

    @cached_property
    def person(self) -> Path:
        return self.pkcs12("person", self.issue("Jane Doe", key=rsa.generate_private_key(65537, 2048)))

    @cached_property
    def self_signed(self) -> Path:
        return self.pkcs12("self-signed", self.issue("Plant 2 seal", alone=True), alone=True)

    @cached_property
    def revocations(self) -> Path:
        return self.revoke("none.crl")

    def issue(
        self,
        name: str,
        *,
        authority: bool = False,
        alone: bool = False,
        purpose: x509.ObjectIdentifier | None = None,
        key: Any = None,
        days: tuple[int, int] = (-2, 365),
    ) -> Issued:
        """Make a certificate: of the root (`authority`), self-signed (`alone`), or by the root."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        by_itself = authority or alone
        above = None if by_itself else self.root
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test works"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        signing_key = key if above is None else above.key
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if above is None else above.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
            )
        )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        return Issued(builder.sign(signing_key, hashes.SHA256()), key)

    def pkcs12(self, name: str, issued: Issued, *, alone: bool = False) -> Path:
        """Write a PKCS#12 file under `PASSPHRASE`."""
        data = pkcs12.serialize_key_and_certificates(
            name.encode(),
            issued.key,
            issued.certificate,
            None if alone else [self.root.certificate],
            BestAvailableEncryption(PASSPHRASE.encode()),
        )
        return self._write(f"{name}.p12", data)

    def revoke(self, name: str, *revoked: Issued) -> Path:
        """Write a revocation list of the root that names these certificates."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + 30 * _DAY)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.key.public_key()),
                critical=False,
            )
        )
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(hours=2)).build())
        return self._write(name, builder.sign(self.root.key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @contextmanager
    def stamping(self) -> Iterator[StampServer]:
        """Run a time-stamp authority (RFC 3161 over HTTP) on loopback."""
        server = StampServer(self)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


class StampServer(ThreadingHTTPServer):
    """An authority that stamps at `url`; at url + "refuse", "garbage", "page" and "other" it misbehaves."""

    daemon_threads = True

    def __init__(self, pki: Pki) -> None:
        super().__init__(("127.0.0.1", 0), _Stamps)
        self.asked = 0
        self.stamper = DummyTimeStamper(
            asn1_x509.Certificate.load(pki.authority.der),
            asn1_keys.PrivateKeyInfo.load(pki.authority.key_der),
            certs_to_embed=[asn1_x509.Certificate.load(pki.root.der)],
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Stamps(BaseHTTPRequestHandler):
    server: StampServer

    def do_POST(self) -> None:
        self.server.asked += 1
        request = tsp.TimeStampReq.load(self.rfile.read(int(self.headers["Content-Length"])))
        how = self.path.strip("/")
        if how == "other":
            imprint = request["message_imprint"].copy()
            imprint["hashed_message"] = bytes(32)
            request["message_imprint"] = imprint
        answer = self.server.stamper.request_tsa_response(request).dump()
        if how == "refuse":
            # A refusal holds no token, which asn1crypto cannot write: PKIStatusInfo { status 2 } alone.
            answer = bytes.fromhex("30053003020102")
        if how == "garbage":
            answer = answer[:200] + bytes(len(answer) - 200)
        self.send_response(200)
        kind = "text/html" if how == "page" else "application/timestamp-reply"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
