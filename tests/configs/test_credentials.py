"""Secrets: in whatever field of the settings and in whatever form, none reaches a record or an error."""

import json
import types
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from configs.credentials import masked_text, masked_url
from configs.loading import ConfigError, load_settings, merge_layers
from configs.schema import Settings
from db.artifacts import ArtifactStore
from db.engine import open_database
from db.errors import RecordError
from db.transparency.checkpoints import CheckpointFolder
from reports.errors import ReportError
from sources.errors import SourceError, Unreadable
from sources.folder import Source

MINIMAL: dict[str, Any] = {"source": {"uri": "pictures"}, "model": {"package": "package"}}
# Each ends with what no output may hold.
PASSWORDS = [
    "hunter2SECRET",
    "hun@ter2SECRET",
    "hun:ter2SECRET",
    "hun%40ter%3A2SECRET",
    "a/b+c=SECRET",
    "1234SECRET",
]
FORMS = [
    "postgresql+psycopg://kensa:{}@db.example/kensa",
    "postgresql+psycopg://me@corp:{}@db.example:5432/kensa?sslmode=require",
    "postgresql+psycopg://kensa@db.example/kensa?password={}&sslmode=require",
    "postgresql+psycopg://kensa@db.example/kensa?sslmode=require&sslpassword={}",
    "postgresql+psycopg:///kensa?pass%77ord={}",
    "s3://AKIAEXAMPLE:{}@bucket/line-4",
    "zip://images::s3://AKIAEXAMPLE:{}@bucket/line-4.zip",
    "simplecache::https://reader:{}@files.example/line-4",
    "sftp://camera:{}@files.example:22/line-4",
    "https://{}@files.example/line-4",
    *(
        "https://files.example/line-4?version=3&" + name + "={}"
        for name in (
            *("X-Amz-Signature", "X-Amz-Security-Token", "X-Goog-Credential", "AWSAccessKeyId", "Signature"),
            *(
                "sig",
                "key",
                "token",
                "access_token",
                "secret",
                "client_secret",
                "passphrase",
                "credential",
                "apikey",
            ),
        )
    ),
    "https://files.example/line-4?next=https%3A%2F%2Freader%3A{}%40inner.example",
]
# Without a colon, what comes before a slash is a host: a token with a slash is escaped or of no use.
ENDING_WITH_A_SLASH = {"https://{}@files.example/line-4"}


def placed(schema: type[BaseModel], text: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each place of the schema that takes a text or a path, and a value that puts the text there."""
    for name, field in schema.model_fields.items():
        yield from ((((name, *rest)), value) for rest, value in values_of(field.annotation, text))


def values_of(kind: Any, text: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from placed(kind, text)
    elif kind in (str, Path, SecretStr):
        yield (), text
    elif get_origin(kind) is tuple:
        yield from ((rest, [value]) for rest, value in values_of(get_args(kind)[0], text))
    elif get_origin(kind) is dict:
        yield from ((rest, {"name": value}) for rest, value in values_of(get_args(kind)[1], text))
        yield (), {text: 1}
    elif get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from values_of(one, text)


PLACES = sorted({place for place, _ in placed(Settings, "")})


def with_value(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    if place[:2] == ("audit", "checkpoints"):
        settings["audit"] = {"signing_key": "line.key"}
    if place[:2] == ("audit", "signing_key"):
        settings["audit"] = {"checkpoints": "checkpoints"}
    if place[:3] == ("report", "signature", "pkcs11"):
        labels = ("module", "token", "key", "certificate")
        settings["report"] = {"signature": {"pkcs11": dict.fromkeys(labels, "x")}}
    section = settings
    for name in place[:-1]:
        section = section.setdefault(name, {})
    section[place[-1]] = value
    return settings


def test_the_walk_meets_every_kind_of_field() -> None:
    met = {".".join(place) for place in PLACES}
    assert met >= {
        *("name", "source.uri", "source.include", "source.manifest", "model.package", "explainer.options"),
        *("database.url", "artifacts.uri", "audit.checkpoints", "audit.passphrase", "audit.trusted_keys"),
        *("report.signature.timestamp_url", "report.signature.pkcs11.token", "report.signature.crls"),
    }


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_secret_reaches_neither_what_is_recorded_nor_an_error(
    place: tuple[str, ...], tmp_path: Path, kensa: Any
) -> None:
    accepted = 0
    for form, password in zip(FORMS, cycle(PASSWORDS), strict=False):  # all pairs: further down
        if "/" in password and form in ENDING_WITH_A_SLASH:
            continue
        given = form.format(password)
        for value in [value for at, value in placed(Settings, given) if at == place]:
            written = with_value(place, value)
            try:
                settings = merge_layers(Settings, [("line.yaml", written)])
            except ConfigError as error:
                told = str(error)
            else:
                accepted += 1
                told = json.dumps(settings.public()) + json.dumps(settings.decision("float32"))
            assert "SECRET" not in told, (given, told)
    # The command prints `public` or the error: once for each place is enough.
    profile = tmp_path / "line.yaml"
    profile.write_text(yaml.safe_dump(written))
    printed = kensa("config", "show", "-c", str(profile), check=None)
    assert "SECRET" not in printed.stdout + printed.stderr
    assert accepted or place in REFUSING, "no form of a secret is accepted here: test another"


# Fields of a fixed set of values or a pattern: every form above is an error, which is what is looked at.
REFUSING = {
    *(("name",), ("model", "device"), ("model", "digest"), ("source", "timezone"), ("schedule", "timezone")),
    *(
        ("report", "timezone"),
        ("schedule", "cron"),
        ("source", "filename_pattern"),
        ("report", "date_format"),
        ("report", "base_url"),
    ),
    *(("explainer", "method"), ("explainer", "options"), ("explainer", "layers")),
}


@pytest.mark.parametrize(
    "text",
    [
        "audit: {passphrase: 123456789}",
        "audit: {passphrase: [123456789]}",
        "audit: [{passphrase: 123456789}]",
        "audit: {passphrase: 0x75bcd15}",
        "report: {signature: {passphrase: 123456789}}",
        "report: {signature: {pkcs11: {passphrase: 123456789}}}",
        "database: postgresql+psycopg://kensa:123456789@db/kensa",
        "database: {url: [postgresql+psycopg://kensa:123456789@db/kensa]}",
        "database: {password: 123456789}",
        "audit: {passphrase: 123456789: x}",
        "audit: {passphrase: *123456789}",
        "audit: {passphrase: !123456789 x}",
        'audit: {passphrase: "123456789}',
        "? [audit, 123456789]\n: 1",
    ],
)
def test_an_error_does_not_repeat_a_secret_of_another_type(text: str, tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(f"{text}\nsource: {{uri: pictures}}\nmodel: {{package: package}}\n")
    with pytest.raises(ConfigError, match=r"line\.yaml: ") as caught:
        load_settings(profile)
    assert "123456789" not in str(caught.value)


def test_a_number_as_a_passphrase_is_answered_with_the_remedy(tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(ConfigError, match=r"^--set: audit\.passphrase: expected text, a number in quotes"):
        load_settings(profile, ["audit.passphrase=123456789"])
    with pytest.raises(ConfigError) as caught:
        load_settings(profile, ["audit.passphrase:123456789"])
    assert "123456789" not in str(caught.value)


def test_a_password_with_an_at_sign_is_told_how_to_write_it(tmp_path: Path) -> None:
    profile = tmp_path / "line.yaml"
    profile.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(ConfigError, match="expected one at sign: in a user or a password it is written %40"):
        load_settings(profile, ["database.url=postgresql+psycopg://kensa:p@ss@db/kensa"])
    fine = load_settings(profile, ["database.url=postgresql+psycopg://kensa:p%40ss@db/kensa?options=a@b"])
    assert fine.public()["database"]["url"] == "postgresql+psycopg://kensa:***@db/kensa?options=a@b"


@pytest.mark.parametrize(
    "value",
    [
        "sqlite:////data/line@4:b/kensa.db",
        "postgresql+psycopg://kensa@db.example:5432/kensa?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "s3://bucket/line-4/2026@11",
        "http://files.example:8080/line@4",
        "zip://images::/data/shift-1.zip",
        "zip://*.png::s3://bucket/shift-1.zip",
        "memory://line",
        "/data/line-1/inbox",
        "Inspection: line 4, ask me@example.org",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(value: str) -> None:
    assert masked_url(value) == value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("password", PASSWORDS)
def test_whatever_quotes_an_address_is_masked_once_and_for_all(form: str, password: str) -> None:
    given = form.format(password)
    if "/" in password and form in ENDING_WITH_A_SLASH:
        return
    assert "SECRET" not in masked_url(given)
    assert masked_url(masked_url(given)) == masked_url(given)
    if "%3A%2F%2F" in form:
        return  # in prose escapes are not read
    for text in (
        f"{given!r} cannot be opened: see line 3",
        f"it said: <{given}>, twice",
        f"url={given}\nnext",
    ):
        assert "SECRET" not in masked_text(text), masked_text(text)
        assert masked_text(masked_text(text)) == masked_text(text)


@pytest.mark.parametrize("error", [ConfigError, RecordError, ReportError, SourceError, Unreadable])
def test_every_error_of_ours_is_masked_where_it_is_made(error: type[Exception]) -> None:
    said = str(
        error("cannot open 's3://AKIA:hunter2SECRET@bucket': 403 for AKIA:hunter2SECRET@bucket, key=SECRET")
    )
    assert "SECRET" not in said
    assert "cannot open 's3://AKIA:***@bucket': 403 for AKIA:***@bucket" in said


@pytest.mark.parametrize(
    "text",
    [
        "report.signature.passphrase: expected text",
        "--set run: expected section.key=value",
        "/etc/kensa/line-1.key: cannot be read",
        "checkpoint: 12 events signed by plant-1/line-4, kept in /mnt/qa: 12 events",
        "people@example.org, at 12:30",
    ],
)
def test_prose_is_left_alone(text: str) -> None:
    assert masked_text(text) == text


def test_opened_places_do_not_show_their_password(tmp_path: Path) -> None:
    with open_database("postgresql+psycopg://kensa:hunter2SECRET@db/kensa?sslpassword=SECRET") as database:
        assert str(database) == "postgresql+psycopg://kensa:***@db/kensa?sslpassword=***"
    for url in (
        "mysql://kensa:SECRET@db/kensa",
        "SECRET:://kensa:SECRET@db",
        "sqlite:///a.db?password=SECRET",
    ):
        with pytest.raises(RecordError) as caught:
            open_database(url.replace("SECRET:://", "no url://"))
        assert "SECRET" not in str(caught.value)
    for opened in (ArtifactStore, CheckpointFolder):
        with pytest.raises(RecordError) as caught:
            opened("nowhere://AKIA:hunter2SECRET@bucket/x?token=SECRET")
        assert "SECRET" not in str(caught.value)
    for options in ({}, {"manifest": "nowhere://AKIA:hunter2SECRET@bucket/x?token=SECRET"}):
        uri = str(tmp_path) if options else "nowhere://AKIA:hunter2SECRET@bucket/x?token=SECRET"
        with pytest.raises(SourceError) as refused:
            Source(uri, **options)
        assert "SECRET" not in str(refused.value)


def test_the_root_of_a_source_that_the_record_keeps_shows_no_password() -> None:
    import fsspec

    fsspec.filesystem("memory").mkdir("/reader:hunter2SECRET@host/line")
    source = Source("memory://reader:hunter2SECRET@host/line")
    assert "SECRET" not in source.root
