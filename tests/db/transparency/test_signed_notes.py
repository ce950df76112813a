"""Signed notes: a known one from elsewhere, our own, and what is refused."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.transparency.signed_notes import (
    CheckpointNote,
    NoteError,
    SigningKey,
    VerifierKey,
    _verified_text,
    generate_key,
    open_checkpoint,
    parse_checkpoint,
    read_signing_key,
    read_verifier_keys,
    write_key,
)

# From the documentation of Go's golang.org/x/mod/sumdb/note, which the format comes from.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"  # noqa: E501
)

KEY = generate_key("plant-1/kensa")
NOTE = CheckpointNote(
    origin=KEY.name,
    tree_size=12,
    root=bytes(range(32)),
    head_hash="ab" * 32,
    at=datetime(2026, 11, 26, 6, 0, 0, 5, UTC),
)
SIGNED = KEY.sign(NOTE.text())


def test_a_note_that_another_implementation_signed() -> None:
    key = VerifierKey.parse(GO_KEY)
    assert str(key) == GO_KEY
    text, signers = _verified_text(GO_NOTE, [key])
    assert text.endswith("what your problem is.\n")
    assert signers == ("PeterNeumann",)
    with pytest.raises(
        NoteError, match="the signature of 'PeterNeumann' does not hold: the text was changed"
    ):
        _verified_text(GO_NOTE.replace("cryptography", "blockchain"), [key])


def test_a_checkpoint_reads_as_it_was_signed() -> None:
    assert SIGNED.startswith(
        "plant-1/kensa\n12\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        f"head {'ab' * 32}\ntime 2026-11-26T06:00:00.000005Z\n\n— plant-1/kensa "
    )
    assert open_checkpoint(SIGNED, [KEY.verifier]) == replace(NOTE, signed_by=("plant-1/kensa",))


def test_what_a_checkpoint_says_can_be_read_without_its_key() -> None:
    assert parse_checkpoint(SIGNED) == NOTE
    with pytest.raises(NoteError, match="not a checkpoint of kensa"):
        parse_checkpoint("something\n")


def test_further_signatures_are_passed_over_unless_the_key_is_trusted() -> None:
    witness = generate_key("witness")
    both = SIGNED + witness.sign(NOTE.text()).rpartition("\n\n")[2]
    assert open_checkpoint(both, [KEY.verifier]).signed_by == ("plant-1/kensa",)
    assert open_checkpoint(both, [witness.verifier, KEY.verifier]).signed_by == ("plant-1/kensa", "witness")
    forged = SIGNED + witness.sign("another text\n").rpartition("\n\n")[2]
    assert open_checkpoint(forged, [KEY.verifier]).signed_by == ("plant-1/kensa",)
    with pytest.raises(NoteError, match="the signature of 'witness' does not hold"):
        open_checkpoint(forged, [KEY.verifier, witness.verifier])


def test_a_key_of_the_same_name_is_another_key() -> None:
    other = generate_key(KEY.name)
    with pytest.raises(NoteError, match=r"no signature by a trusted key \(plant-1/kensa\+[0-9a-f]{8}\)"):
        open_checkpoint(SIGNED, [other.verifier])
    with pytest.raises(NoteError, match="none was given"):
        open_checkpoint(SIGNED, [])


def test_any_changed_bit_is_refused() -> None:
    for bit in range(len(SIGNED.encode()) * 8):
        data = bytearray(SIGNED.encode())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NoteError):
            open_checkpoint(data.decode("utf-8", "backslashreplace"), [KEY.verifier])


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("", "not a signed note"),
        ("text\n", "not a signed note"),
        ("text\n\n— name", "not a signed note"),
        ("text\n\nname AAAAAAAA\n", "is not a signature line"),
        ("text\n\n— name !\n", "is not a signature line"),
        ("text\n\n— name AAA=\n", "is not a signature line"),
        (KEY.sign("no checkpoint\n"), "not a checkpoint of kensa: expected origin"),
        (KEY.sign(NOTE.text().replace("\n12\n", "\n012\n")), "not a checkpoint of kensa"),
        (KEY.sign(NOTE.text() + "more\n"), "not a checkpoint of kensa"),
    ],
)
def test_what_is_no_checkpoint(note: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        open_checkpoint(note, [KEY.verifier])


@pytest.mark.parametrize("text", ["", "no end", "\nfirst line empty\n", "a\n\nb\n"])
def test_what_cannot_be_signed(text: str) -> None:
    with pytest.raises(NoteError, match="lines that are not empty"):
        KEY.sign(text)


@pytest.mark.parametrize("name", ["", "plant 1", "plant+1", "plant\u00a01", "plant\x1b1"])
def test_names_that_no_key_can_have(name: str) -> None:
    with pytest.raises(NoteError, match="give one without spaces and plus signs"):
        generate_key(name)


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_keys_on_disk(tmp_path: Path, passphrase: str | None) -> None:
    private, public = write_key(KEY, tmp_path / "keys", passphrase)
    assert (private.name, public.name) == ("plant-1-kensa.key", "plant-1-kensa.pub")
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    assert (b"ENCRYPTED" in private.read_bytes()) == (passphrase is not None)
    assert read_verifier_keys(public) == [KEY.verifier]
    again = read_signing_key(private, passphrase)
    assert open_checkpoint(again.sign(NOTE.text()), [KEY.verifier]).tree_size == 12
    before = private.read_bytes()
    with pytest.raises(NoteError, match="is there already, and a key is never overwritten"):
        write_key(KEY, tmp_path / "keys", passphrase)
    assert private.read_bytes() == before


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    private, public = write_key(KEY, tmp_path, "secret")
    with pytest.raises(NoteError, match=r"it may need a passphrase: .* KENSA_AUDIT__PASSPHRASE"):
        read_signing_key(private, None)
    with pytest.raises(NoteError, match=r"the passphrase is wrong: .* KENSA_AUDIT__PASSPHRASE"):
        read_signing_key(private, "other")
    with pytest.raises(NoteError, match="make one with `kensa audit keygen`"):
        read_signing_key(tmp_path / "absent.key", None)
    public.write_text(f"{generate_key(KEY.name).verifier}\n")
    with pytest.raises(NoteError, match="is not the public key of"):
        read_signing_key(private, "secret")
    public.write_text("\n")
    with pytest.raises(NoteError, match="holds no public key"):
        read_verifier_keys(public)
    public.write_bytes(b"\xff\xfe")
    with pytest.raises(NoteError, match="cannot be read as a public key"):
        read_verifier_keys(public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AAAA",
        str(KEY.verifier).replace("+", "+0", 1),
        str(KEY.verifier)[:-4] + "====",
    ],
    ids=["empty", "no key", "key too short", "hash too long", "no base64"],
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(NoteError, match="public key"):
        VerifierKey.parse(text)


def test_a_private_key_of_another_kind(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ec.key").write_bytes(pem)
    with pytest.raises(NoteError, match="is not an Ed25519 key"):
        read_signing_key(tmp_path / "ec.key", None)


def test_signing_keys_do_not_show_themselves() -> None:
    assert "Ed25519PrivateKey object" in repr(SigningKey("a", KEY.private))


@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    *(
                        KEY.name,
                        "\n",
                        "\n\n",
                        "\N{EM DASH} ",
                        "12",
                        "9" * 5000,
                        "head ",
                        "time ",
                        "ab" * 32,
                        "=" * 8,
                    ),
                    *("0001-01-01T00:00:00+10:00", "AAAA", "\ud800", "\x0c", "\r", *SIGNED.splitlines(True)),
                ]
            ),
            max_size=12,
        ).map("".join),
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_note_holds_is_a_checkpoint_or_a_sentence(text: str) -> None:
    for read in (parse_checkpoint, lambda text: open_checkpoint(text, [KEY.verifier])):
        try:
            assert read(text).text() == text.partition("\n\n")[0] + "\n"
        except NoteError as error:
            assert len(str(error)) < 500  # noqa: PT017 - it may be one


def test_a_note_has_one_spelling() -> None:
    assert open_checkpoint(SIGNED, [KEY.verifier])
    for end in ("\r", "\x0c", "\x1c", "\N{LINE SEPARATOR}"):
        with pytest.raises(NoteError, match="is not a signature line"):
            open_checkpoint(SIGNED[:-1] + end + "\n", [KEY.verifier])


def test_a_time_before_the_first_year_is_none() -> None:
    text = NOTE.text().replace("2026-11-26T06:00:00.000005Z", "0001-01-01T00:00:00+10:00")
    with pytest.raises(NoteError, match="not a checkpoint of kensa"):
        parse_checkpoint(text)
