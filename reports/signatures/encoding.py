"""Is a signature spelled as its maker spelled it? What a signature does not sign of itself is looked at here.

A signature signs the bytes around it and the attributes that its signer chose. Around those lie bytes that no
signature covers: the hexadecimal digits and their padding, certificates that came along, attributes added
later. A changed byte there changes nothing that is proved, but a file in which a byte was changed is not the
file that was signed, and is told apart.
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
    """Give what is wrong with a signature's own bytes; nothing where all is as it should be.

    `known`: certificates that may have issued those in the signature.
    """
    return [*_contents(pdf, signature), *_message(signature.pkcs7_content, known)]


def _contents(pdf: bytes, signature: EmbeddedPdfSignature) -> Iterator[str]:
    """Look at the hexadecimal string between the signed bytes: one case of letters, zeros after the end."""
    _, before, after, _ = signature.byte_range
    digits = pdf[before + 1 : after - 1]
    if pdf[before : before + 1] != b"<" or pdf[after - 1 : after] != b">":
        yield "it is not where the signed bytes leave room for it"
    same = bytes.fromhex(digits.decode("ascii")) == signature.pkcs7_content
    if not same or digits not in (digits.lower(), digits.upper()):
        yield "its digits are not spelled as they were"


def _message(data: bytes, known: Sequence[Certificate]) -> Iterator[str]:
    content = cms.ContentInfo.load(data)
    if data[len(content.dump()) :].strip(b"\0"):
        yield "bytes follow its end"
    yield from _odd(content, known)


def _odd(content: cms.ContentInfo, known: Sequence[Certificate]) -> Iterator[str]:
    """Look at a CMS message: one signer, and nothing that is not needed."""
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
        yield from _parameters(algorithm)
    yield from _certificates(signed, known)
    for attribute in signer["unsigned_attrs"] or ():
        if attribute["type"].native != _STAMP:
            yield "it holds an attribute that nobody signed"
        else:
            for stamp in attribute["values"]:
                yield from (f"its time stamp: {odd}" for odd in _odd(stamp, known))


def _parameters(algorithm: algos.DigestAlgorithm | algos.SignedDigestAlgorithm) -> Iterator[str]:
    """Look at parameters that are to be absent or NULL: nobody reads them, so nobody would notice."""
    parameters = algorithm["parameters"]
    if algorithm["algorithm"].native != "rsassa_pss" and parameters.native is not None:
        yield "its algorithm has parameters that it does not take"


def _certificates(signed: cms.SignedData, known: Sequence[Certificate]) -> Iterator[str]:
    """Look at certificates that came along: they form the signer's chain, each as its issuer signed it."""
    certificates = extract_certificate_info(signed)
    above = [_parsed(each) for each in certificates.other_certs]
    issuers = [*above, *map(_parsed, known)]
    chain = [_parsed(certificates.signer_cert)]
    while not _by_itself(certificate := chain[-1]):
        issuer = next((each for each in issuers if _issued(certificate, each)), None)
        if issuer is None or issuer in chain:
            break
        chain.append(issuer)
    if any(each not in chain for each in above):
        yield "it holds a certificate that is not of its signer's chain, or was changed"
    top = chain[-1]
    if _by_itself(top) and not _issued(top, top):
        yield "a certificate in it is not as it was issued"


def _by_itself(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that it was issued by itself, by name or by the identifier of its key."""
    if certificate.issuer == certificate.subject:
        return True
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        above = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return False
    return above.key_identifier == own


def _parsed(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.dump())


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
