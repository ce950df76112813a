"""Load settings from a profile, the environment and overrides; name each mistake's origin and key."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from configs.schema import Settings

Schema = TypeVar("Schema", bound=BaseModel)

# Variables of ours that are no settings: the folder of the test data, and the default profile.
_RESERVED_VARIABLES = {"KENSA_DATA", "KENSA_CONFIG"}


class ConfigError(ValueError):
    """Settings that cannot be used; each line names an origin, a key, and what was expected."""


def profile_path(name: str, *, evaluation: bool = False) -> Path:
    """Return the path of a profile: a YAML file as given, or the name of one that ships with kensa ("demo").

    Args:
        name: name of a file or of a shipped profile.
        evaluation: whether the profile is for `kensa evaluate` ("evaluate-voc") and not for a run.

    Raises:
        ConfigError: the name is neither that of a file nor of a shipped profile.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    shipped = {
        path.stem: path
        for path in sorted(Path(__file__).parent.glob("*.yaml"))
        if path.stem.startswith("evaluate-") == evaluation
    }
    if name in shipped:
        return shipped[name]
    names = ", ".join(shipped)
    raise ConfigError(f"{name}: expected a YAML file, or one of the shipped profiles: {names}")


def load_settings(config: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Load settings: defaults < YAML < environment (KENSA_SECTION__KEY) < overrides ("section.key=value").

    Raises:
        ConfigError: one line per mistake, with its origin, the key and what was expected.
    """
    path = profile_path(str(config))
    layers = [
        (str(path), read_yaml(path)),
        ("environment", _read_environment()),
        ("--set", read_overrides(overrides)),
    ]
    return merge_layers(Settings, layers)


def merge_layers(
    schema: type[Schema], layers: Sequence[tuple[str, Mapping[str, Any]]], tagged: Sequence[str] = ()
) -> Schema:
    """Return settings from layers, of which later ones win.

    Args:
        schema: the settings' type.
        layers: (origin, values), the profile first.
        tagged: names of sections that have several kinds. In the location of a mistake pydantic puts the kind
            after the name; it is no key and is left out of the message.

    Raises:
        ConfigError: one line per mistake, with its origin, the key and what was expected.
    """
    values: dict[str, Any] = {}
    # A missing key has no origin: the mistake is the profile's.
    origins: dict[tuple[str, ...], str] = {(): layers[0][0]}
    for origin, layer in layers:
        _merge_layer(values, layer, origin, origins)
    try:
        return schema(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain_mistakes(error, origins, schema, tagged))) from None


def check_paths(settings: Settings) -> list[str]:
    """Return a line for each local path in the settings that cannot be used; empty when all can."""
    problems = []
    if "://" not in settings.source.uri and not Path(settings.source.uri).is_dir():
        problems.append(f"source.uri: expected an existing folder, got {settings.source.uri!r}")
    manifest = settings.source.manifest
    if (
        manifest
        and "://" not in manifest + settings.source.uri
        and not (Path(settings.source.uri) / manifest).is_file()
    ):
        problems.append(
            "source.manifest: expected an existing CSV or JSON Lines file (relative to the source),"
            f" got {manifest!r}"
        )
    if not (settings.model.package / "model.json").is_file():
        problems.append(
            "model.package: expected a folder with model.json and model.safetensors,"
            f" got '{settings.model.package}'"
        )
    templates = settings.report.templates
    if templates is not None and not templates.is_dir():
        problems.append(f"report.templates: expected an existing folder, got '{templates}'")
    audit, signature = settings.audit, settings.report.signature
    for key, expected, files in (
        ("audit.signing_key", "a private key from `kensa audit keygen`", [audit.signing_key]),
        ("audit.trusted_keys", "a public key", audit.trusted_keys),
        ("report.signature.pkcs12", "a PKCS#12 file", [signature.pkcs12]),
        (
            "report.signature.pkcs11.module",
            "the driver's library",
            [signature.pkcs11.module] if signature.pkcs11 else [],
        ),
        ("report.signature.trust_roots", "certificates", signature.trust_roots),
        ("report.signature.crls", "revocation lists", signature.crls),
    ):
        problems += [
            f"{key}: expected {expected}, got '{file}'" for file in files if file and not file.is_file()
        ]
    url = settings.database.url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).absolute().parent.is_dir():
        problems.append(f"database.url: expected a file in an existing folder, got {url!r}")
    return problems


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has something else than a mapping at the top.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable YAML file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, got {type(data).__name__}")
    return data


def _read_environment() -> dict[str, Any]:
    known = _variable_names(Settings, "KENSA_")
    for name in sorted(os.environ):
        if name.startswith("KENSA_") and name not in known | _RESERVED_VARIABLES:
            hint = _suggestion(name, known)
            raise ConfigError(f"environment: {name}: unknown variable{hint}")
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; lists are written as JSON") from None


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested settings for overrides "section.key=value", each value written in YAML.

    Raises:
        ConfigError: an override has another form.
    """
    layer: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {override}: expected section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for name in reversed(key.strip().split(".")):
            value = {name: value}
        _merge_layer(layer, value, "--set", {})
    return layer


def _variable_names(model: type[BaseModel], prefix: str) -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        names.add(variable)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= _variable_names(field.annotation, variable + "__")
    return names


def _merge_layer(
    into: dict[str, Any],
    layer: Mapping[str, Any],
    origin: str,
    origins: dict[tuple[str, ...], str],
    at: tuple[str, ...] = (),
) -> None:
    """Lay settings over those gathered so far, in place, and note where each key came from."""
    for key, value in layer.items():
        place = (*at, str(key))
        origins[place] = origin
        if isinstance(value, Mapping):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge_layer(into[key], value, origin, origins, place)
        else:
            into[key] = value


def _explain_mistakes(
    error: ValidationError,
    origins: Mapping[tuple[str, ...], str],
    schema: type[BaseModel],
    tagged: Sequence[str],
) -> list[str]:
    """Return pydantic's errors as one line each: where the value came from, its key, what was expected."""
    lines = []
    for problem in error.errors(include_url=False):
        place = tuple(str(part) for part in problem["loc"])
        if place[:1] and place[0] in tagged:
            place = place[:1] + place[2:]
        origin = next(origins[place[:n]] for n in range(len(place), -1, -1) if place[:n] in origins)
        key = ".".join(place)
        if problem["type"] == "extra_forbidden":
            siblings = _keys_at(schema, place[:-1])
            expected = f"; expected one of {', '.join(siblings)}" if siblings else ""
            text = f"unknown key{_suggestion(place[-1], siblings)}{expected}"
        elif problem["type"] == "missing":
            text = "missing; expected a value"
        elif problem["type"] == "value_error":
            text = f"expected {problem['ctx']['error']}"
        else:
            text = f"expected {problem['msg'].removeprefix('Input should be ')}, got {problem['input']!r}"
        lines.append(f"{origin}: {key + ': ' if key else ''}{text}")
    return lines


def _keys_at(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    for name in place:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _suggestion(name: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
