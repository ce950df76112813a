"""Load settings from a profile, the environment and overrides; name each mistake's origin and key."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from configs.credentials import masked_text, quoted_value, short_text
from configs.schema import Settings

Schema = TypeVar("Schema", bound=BaseModel)

# Variables of ours that are no settings: the folder of the test data, and the default profile.
_RESERVED_VARIABLES = {"KENSA_DATA", "KENSA_CONFIG"}
# Limits of YAML from outside, far above what settings need: the longest profile that ships has 3 kB.
_MOST_BYTES = 256 * 1024
_MOST_NODES = 10_000
_DEEPEST = 40
_LARGEST_INTEGER = 10**18
_MOST_MISTAKES = 50


class ConfigError(ValueError):
    """Settings that cannot be used; each line names origin, key and what was expected, and no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked_text(message))


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
    mistakes = _unknown_variables()
    try:
        settings = merge_layers(Settings, layers)
    except ConfigError as error:
        # A key that is unknown is told once, by the variable that has it.
        told = tuple(f"environment: {key}: " for key in mistakes)
        others = [line for line in str(error).splitlines() if not (told and line.startswith(told))]
        raise ConfigError("\n".join([*mistakes.values(), *others])) from None
    if mistakes:
        raise ConfigError("\n".join(mistakes.values()))
    return settings


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
        lines = _explain_mistakes(error, origins, schema, tagged)
        more = [f"and {len(lines) - _MOST_MISTAKES} more"] if len(lines) > _MOST_MISTAKES else []
        raise ConfigError("\n".join([*lines[:_MOST_MISTAKES], *more])) from None


def require_paths(settings: Settings) -> None:
    """Raise ConfigError, with a line for each, where local paths in the settings cannot be used."""
    if problems := check_paths(settings):
        raise ConfigError("\n".join(problems))


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
        ConfigError: the file cannot be read, is not YAML, is beyond the limits of `yaml_value`, or has
            something else than a mapping at the top.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable YAML file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected YAML in UTF-8: byte {error.start} is none") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: expected a file of settings, of at most {_MOST_BYTES} bytes")
    data = yaml_value(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, got {type(data).__name__}")
    return data


def yaml_value(text: str, origin: str) -> Any:
    """Return the value of YAML from outside.

    Args:
        text: at most some 100 kB; the loader is slow.
        origin: file or option that errors name.

    Raises:
        ConfigError: it is not YAML, it is nested more than 40 levels deep, it has more than 10,000 values
            once its aliases are written out, or a number of more than 18 digits. The text itself is not
            repeated, for it may hold a secret.
    """
    try:
        return _loaded_yaml(text)
    except _LimitError as error:
        raise ConfigError(f"{origin}: expected settings: {error}") from None
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f" (line {place.line + 1}, column {place.column + 1})" if place else ""
        # PyYAML quotes what it found there.
        what = re.sub(r"'(?!<)[^']{3,}'", "'…'", error.problem or error.context or "")
        raise ConfigError(f"{origin}: expected YAML: {short_text(what)}{where}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: expected YAML: {short_text(str(error))}") from None
    except _NO_VALUE:
        raise ConfigError(
            f"{origin}: expected YAML: it holds a number, date or character that is none"
        ) from None


def _loaded_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


# What PyYAML's constructors raise of a text that is not of its tag, such as !!int or !!timestamp.
_NO_VALUE = (ValueError, OverflowError, LookupError, AttributeError, TypeError)


class _LimitError(Exception):
    """YAML beyond a limit."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, within limits: aliases of aliases, or brackets, take it seconds and gigabytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of nodes, by id, their aliases written out

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        before, self._depth = self._nodes, self._depth + 1
        if self._depth > _DEEPEST:
            raise _LimitError(f"it is nested more than {_DEEPEST} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise _LimitError("an alias stands inside of what it refers to")
        self._nodes += self._sizes[id(node)] if alias else 1
        if self._nodes > _MOST_NODES:
            raise _LimitError(f"it has more than {_MOST_NODES} values, its aliases written out")
        self._sizes.setdefault(id(node), self._nodes - before)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if abs(value) >= _LARGEST_INTEGER:
            raise _LimitError("it holds a number of more than 18 digits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _unknown_variables() -> dict[str, str]:
    """Return a line for each variable of the environment that is named as ours and is none, by its key."""
    known = _variable_names(Settings, "KENSA_")
    return {
        name.removeprefix("KENSA_").lower().replace("__", "."): (
            f"environment: {name}: unknown variable{_suggestion(name, known)}"
        )
        for name in sorted(os.environ)
        if name.startswith("KENSA_") and name not in known | _RESERVED_VARIABLES
    }


def _read_environment() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigError(f"environment: {short_text(str(error))}; lists are written as JSON") from None
    except RecursionError:
        raise ConfigError("environment: a variable of KENSA_… holds JSON that is nested too deep") from None


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested settings for overrides "section.key=value", each value written in YAML.

    Raises:
        ConfigError: an override has another form.
    """
    layer: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        names = key.strip().split(".")
        if not equals or not key.strip():
            raise ConfigError(f"--set {short_text(override)}: expected section.key=value")
        if len(names) > _DEEPEST:
            raise ConfigError(f"--set {short_text(key)}: expected section.key, got {len(names)} names")
        value = option_value(text, f"--set {short_text(key)}")
        for name in reversed(names):
            value = {name: value}
        _merge_layer(layer, value, "--set", {})
    return layer


def option_value(text: str, origin: str) -> Any:
    """Return the value of an option that is written in YAML; text that is no YAML stands for itself.

    Raises:
        ConfigError: it is beyond the limits of `yaml_value`; the error names `origin`.
    """
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"{origin}: expected a value of at most {_MOST_BYTES} characters")
    try:
        return _loaded_yaml(text)
    except _LimitError as error:
        raise ConfigError(f"{origin}: expected a setting: {error}") from None
    except (yaml.YAMLError, *_NO_VALUE):
        return text


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
    for name, value in layer.items():
        key = str(name)  # YAML has keys of other types, which are none of ours
        place = (*at, key)
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
        key = short_text(".".join(place).encode("utf-8", "backslashreplace").decode())
        if problem["type"] == "extra_forbidden":
            section = _section_at(schema, place[:-1])
            siblings = list(section.model_fields) if section else []
            expected = f"; expected one of {', '.join(siblings)}" if siblings else ""
            text = f"unknown key{_suggestion(place[-1][:100], siblings)}{expected}"
        elif problem["type"] == "missing":
            text = "missing; expected a value"
        elif problem["type"] == "value_error":
            text = f"expected {problem['ctx']['error']}"
        elif _is_secret(schema, place):
            text = "expected text, a number in quotes; the value is a secret and is not repeated"
        else:
            expected = problem["msg"].removeprefix("Input should be ")
            text = f"expected {expected}, got {quoted_value(problem['input'])}"
        lines.append(f"{origin}: {key + ': ' if key else ''}{text}")
    return lines


def _section_at(model: type[BaseModel], place: Sequence[str]) -> type[BaseModel] | None:
    for name in place:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        sections = [kind for kind in (annotation, *get_args(annotation)) if _is_section(kind)]
        if len(sections) != 1:
            return None
        model = sections[0]
    return model


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_secret(schema: type[BaseModel], place: Sequence[str]) -> bool:
    """Return whether a key's value is a secret by its type."""
    section = _section_at(schema, place[:-1])
    field = section.model_fields.get(place[-1]) if section and place else None
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _suggestion(name: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
