"""Finds changes in those bytes of a signature that the signature itself does not cover.

A signature covers the document around it and the attributes that its signer chose. It does not cover its own
hexadecimal digits and their padding, the certificates that came along, and attributes added later. A changed
byte there changes nothing that is proved. But the file is no longer the one that was signed, and a reader is
told so.
"""

from collections.abc import Iterator, Sequence

from asn1crypto import algos, cms
from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pyhanko.sign.general import extract_certificate_info
from pyhanko.sign.validation import EmbeddedPdfSignature

_STAMP = "signature_time_stamp_token"


def oddities(pdf: bytes, signature: EmbeddedPdfSignature, known: Sequence[Certificate]) -> list[str]:
    """Return what is wrong with a signature's own bytes, each as a phrase; empty where nothing is.

    Args:
        pdf: the file.
        signature: one of its signatures.
        known: certificates that may have issued those in the signature.
    """
    return [*_digit_oddities(pdf, signature), *_encoded_oddities(signature.pkcs7_content, known)]


def _digit_oddities(pdf: bytes, signature: EmbeddedPdfSignature) -> Iterator[str]:
    """Yield what is wrong with the hexadecimal string between the signed bytes."""
    _, before, after, _ = signature.byte_range
    digits = pdf[before + 1 : after - 1]
    if pdf[before : before + 1] != b"<" or pdf[after - 1 : after] != b">":
        yield "it is not where the signed bytes leave room for it"
    same = bytes.fromhex(digits.decode("ascii")) == signature.pkcs7_content
    # Upper and lower case mean the same, so a changed case would go unnoticed.
    if not same or digits not in (digits.lower(), digits.upper()):
        yield "its digits are not spelled as they were"


def _encoded_oddities(data: bytes, known: Sequence[Certificate]) -> Iterator[str]:
    """Yield what is wrong with the padded bytes of a CMS message."""
    content = cms.ContentInfo.load(data)
    if data[len(content.dump()) :].strip(b"\0"):
        yield "bytes follow its end"
    yield from _message_oddities(content, known)


def _message_oddities(content: cms.ContentInfo, known: Sequence[Certificate]) -> Iterator[str]:
    """Yield what is wrong with a CMS message (RFC 5652): one signer, and nothing that is not needed."""
    content.native  # noqa: B018 - reads all of it, or raises
    signed = content["content"]
    signers = signed["signer_infos"]
    if len(signers) != 1:
        yield f"it has {len(signers)} signers"
        return
    signer = signers[0]
    if [a.dump() for a in signed["digest_algorithms"]] != [signer["digest_algorithm"].dump()]:
        yield "its digest algorithms are not those of its signer"
    for algorithm in (signer["digest_algorithm"], signer["signature_algorithm"]):
        yield from _parameter_oddities(algorithm)
    yield from _certificate_oddities(signed, known)
    for attribute in signer["unsigned_attrs"] or ():
        if attribute["type"].native != _STAMP:
            yield "it holds an attribute that nobody signed"
        else:
            for stamp in attribute["values"]:
                yield from (f"its time stamp: {odd}" for odd in _message_oddities(stamp, known))


def _parameter_oddities(algorithm: algos.DigestAlgorithm | algos.SignedDigestAlgorithm) -> Iterator[str]:
    """Yield a complaint about parameters that are to be absent or NULL: no reader would notice a change."""
    parameters = algorithm["parameters"]
    if algorithm["algorithm"].native != "rsassa_pss" and parameters.native is not None:
        yield "its algorithm has parameters that it does not take"


def _certificate_oddities(signed: cms.SignedData, known: Sequence[Certificate]) -> Iterator[str]:
    """Yield what is wrong with the certificates that came along.

    They form the signer's chain, and each is as its issuer signed it.
    """
    certificates = extract_certificate_info(signed)
    above = [_parse_certificate(each) for each in certificates.other_certs]
    issuers = [*above, *map(_parse_certificate, known)]
    chain = [_parse_certificate(certificates.signer_cert)]
    while not _is_root(certificate := chain[-1]):
        issuer = next((each for each in issuers if _is_issued_by(certificate, each)), None)
        if issuer is None or issuer in chain:
            break
        chain.append(issuer)
    if any(each not in chain for each in above):
        yield "it holds a certificate that is not of its signer's chain, or was changed"
    top = chain[-1]
    if _is_root(top) and not _is_issued_by(top, top):
        yield "a certificate in it is not as it was issued"


def _is_root(certificate: x509.Certificate) -> bool:
    """Return whether a certificate says that it issued itself, by name or by the identifier of its key.

    Either of the two counts: a changed bit in one of them must not turn a root into something else.
    """
    if certificate.issuer == certificate.subject:
        return True
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        above = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return False
    return above.key_identifier == own


def _parse_certificate(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.dump())


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
