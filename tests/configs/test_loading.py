"""Settings: precedence, and mistakes answered with origin, key and what was expected."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.loading import ConfigError, check_paths, load_settings, profile_path
from configs.schema import Settings

MINIMAL = "source: {uri: pictures}\nmodel: {package: pkg}\n"


@pytest.fixture
def profile(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "line.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults_file_environment_overrides_in_this_order(profile, monkeypatch):
    path = profile(MINIMAL + "run: {batch_size: 10, decode_ahead: 3}\nexplainer: {mu: 0.1}\n")
    monkeypatch.setenv("KENSA_RUN__BATCH_SIZE", "20")
    monkeypatch.setenv("KENSA_RUN__DECODE_AHEAD", "4")
    settings = load_settings(path, ["run.batch_size=30"])
    assert settings.run.batch_size == 30
    assert settings.run.decode_ahead == 4
    assert settings.explainer.mu == 0.1
    assert settings.model.batch_size == 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "source: {uri: a, inclde: ['*.png']}\nmodel: {package: p}\n",
            "line.yaml: source.inclde: unknown key (did you mean include?)",
        ),
        ("sauce: {}\n" + MINIMAL, "line.yaml: sauce: unknown key (did you mean source?)"),
        (
            "source: {uri: a}\nmodel: {package: p, batch_size: many}\n",
            "line.yaml: model.batch_size: expected a valid integer",
        ),
        (
            "source: {uri: a}\nmodel: {package: p, batch_size: 0}\n",
            "line.yaml: model.batch_size: expected greater than or equal to 1, got 0",
        ),
        ("source: {uri: a}\n", "line.yaml: model: missing"),
        (
            MINIMAL + "report: {timezone: Mars/Base}\n",
            "line.yaml: report.timezone: expected an IANA time zone",
        ),
        (MINIMAL + "schedule: {cron: hourly}\n", "line.yaml: schedule.cron: expected a cron expression"),
        (
            "source: {uri: a, filename_pattern: '(?P<lott>x)'}\nmodel: {package: p}\n",
            "expected named groups out of part, lot",
        ),
        ("source: {uri: a, filename_pattern: '('}\nmodel: {package: p}\n", "expected a regular expression"),
        (
            "source: {uri: a, grey_range: [9, 3]}\nmodel: {package: p}\n",
            "source.grey_range: expected two values",
        ),
        ("- a\n- b\n", "line.yaml: expected a mapping of sections"),
        ("a: [\n", "line.yaml: expected YAML"),
    ],
)
def test_a_mistake_is_answered_with_file_key_and_expectation(profile, text, expected):
    with pytest.raises(ConfigError) as caught:
        load_settings(profile(text))
    assert expected in str(caught.value)


def test_every_mistake_is_told_at_once(profile):
    with pytest.raises(ConfigError) as caught:
        load_settings(profile("source: {uri: a, x: 1}\nmodel: {package: p, device: tpu}\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_mistakes_from_environment_and_overrides_name_them(profile, monkeypatch):
    path = profile(MINIMAL)
    with pytest.raises(ConfigError, match=r"^--set: run.batch_size: expected"):
        load_settings(path, ["run.batch_size=x"])
    with pytest.raises(ConfigError, match=r"expected section.key=value"):
        load_settings(path, ["run"])
    monkeypatch.setenv("KENSA_RUN__BATCH_SIZE", "-1")
    with pytest.raises(ConfigError, match=r"^environment: run.batch_size: expected"):
        load_settings(path)
    monkeypatch.setenv("KENSA_RUN__BATCHSIZE", "1")
    with pytest.raises(
        ConfigError, match=r"KENSA_RUN__BATCHSIZE: unknown variable \(did you mean KENSA_RUN__BATCH_SIZE\?\)"
    ):
        load_settings(path)
    monkeypatch.setenv("KENSA_MODELL__PACKAGE", "p")
    with pytest.raises(ConfigError) as caught:  # all mistakes at once
        load_settings(path, ["run.decode_ahead=0"])
    named = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert named == ["KENSA_MODELL__PACKAGE", "KENSA_RUN__BATCHSIZE", "run.batch_size", "run.decode_ahead"]


@pytest.mark.parametrize(
    "url", ["ftp://qa.example/reports", "https://u:secret@qa.example/", "https://qa.example/?token=secret"]
)
def test_an_address_that_prefect_shows_holds_no_secret(profile, url):
    with pytest.raises(ConfigError, match=r"report\.base_url: expected") as caught:
        load_settings(profile(MINIMAL), [f"report.base_url={url}"])
    assert "secret" not in str(caught.value)
    good = load_settings(profile(MINIMAL), ["report.base_url=https://qa.example/line-1/reports"])
    assert good.report.base_url == "https://qa.example/line-1/reports"


def test_a_later_override_replaces_an_earlier_one_above_or_below_it(profile):
    path = profile(MINIMAL)
    assert load_settings(path, ["run=1", "run.batch_size=7"]).run.batch_size == 7
    with pytest.raises(ConfigError, match=r"^--set: run: expected"):
        load_settings(path, ["run.batch_size=7", "run=1"])


def test_a_password_is_never_repeated(profile):
    path = profile(MINIMAL + "database: {url: 'postgresql+psycopg://kensa:s3cret@db/kensa'}\n")
    assert "s3cret" not in str(load_settings(path).public())
    bad = profile(MINIMAL + "database: {url: 'mysql://kensa:s3cret@db/kensa'}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(bad)
    assert "s3cret" not in str(caught.value)


def test_paths_are_checked_before_anything_starts(profile, tmp_path):
    settings = load_settings(profile(MINIMAL), [f"source.uri={tmp_path / 'none'}", "source.manifest=no.csv"])
    problems = check_paths(settings)
    assert [p.split(":")[0] for p in problems] == ["source.uri", "source.manifest", "model.package"]
    looks = load_settings(profile(MINIMAL), [f"report.templates={tmp_path / 'none'}"])
    assert any(p.startswith("report.templates: expected an existing folder") for p in check_paths(looks))


def test_only_what_decides_an_outcome_is_in_the_decision(profile):
    base = load_settings(profile(MINIMAL))
    same = load_settings(profile(MINIMAL), ["run.batch_size=3", "explainer.batch_size=2", "report.title=x"])
    other = load_settings(profile(MINIMAL), ["explainer.mu=0.5"])
    assert base.decision("float32") == same.decision("float32")
    assert base.decision("float32") != other.decision("float32")
    assert base.decision("float32") != base.decision("bfloat16")


@pytest.mark.parametrize("name", ["demo", "steel"])
def test_shipped_profiles_load(name):
    assert load_settings(profile_path(name)).name


def test_an_unknown_profile_names_those_that_ship():
    with pytest.raises(ConfigError, match="demo, steel"):
        profile_path("stel")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "it has more than 10000 values, its aliases written out"),
        ("source: " + "[" * 5000 + "]" * 5000, "it is nested more than 40 levels deep"),
        ("source: " + "{a: " * 5000 + "1" + "}" * 5000, "it is nested more than 40 levels deep"),
        ("source: &s {uri: *s}", "an alias stands inside of what it refers to"),
        (f"run: {{batch_size: {'1' * 10_000}}}", "it holds a number, date or character that is none"),
        (f"run: {{batch_size: 0x{'1' * 10_000}}}", "it holds a number of more than 18 digits"),
        ("schedule: {cron: 2026-13-45}", "it holds a number, date or character that is none"),
        ("name: " + "x" * 300_000, "expected a file of settings, of at most 262144 bytes"),
        ('name: "\\U00110000"', "it holds a number, date or character that is none"),
        ("name: \xff", "expected YAML in UTF-8"),
        ("name: !!int ''", "it holds a number, date or character that is none"),
        ("name: !!bool x", "it holds a number, date or character that is none"),
        ("name: !!timestamp x", "it holds a number, date or character that is none"),
    ],
)
def test_yaml_that_is_a_bomb_is_refused_in_a_sentence(profile, text, expected):
    path = profile("")
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 600


def test_aliases_within_reason_are_read(profile):
    path = profile("report: &zone {timezone: Europe/Berlin}\nschedule: *zone\n" + MINIMAL)
    assert load_settings(path).schedule.timezone == "Europe/Berlin"
    merged = profile("source: &source {uri: pictures}\nmodel: {package: p}\nrun: {<<: {batch_size: 3}}\n")
    assert load_settings(merged).run.batch_size == 3


def test_an_override_has_the_limits_of_a_file(profile):
    path = profile(MINIMAL)
    for override, expected in (
        ("run=" + "[" * 5000, r"--set run: expected a setting: it is nested more than 40"),
        ("a." * 5000 + "b=1", r"--set a\.a\..*: expected section\.key, got 5001 names"),
        ("name=" + "x" * 300_000, r"--set name: expected a value of at most 262144 characters"),
        ("x" * 300_000, r"--set x+… \(300000 characters\): expected section\.key=value"),
    ):
        with pytest.raises(ConfigError, match=expected) as caught:
            load_settings(path, [override])
        assert len(str(caught.value)) < 1000


def test_a_variable_is_not_nested_without_end(profile, monkeypatch):
    monkeypatch.setenv("KENSA_DISPOSITIONS__FOUR_EYES", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ConfigError, match=r"^environment: "):
        load_settings(profile(MINIMAL))


def test_what_an_error_repeats_is_cut(profile):
    path = profile(
        MINIMAL + f"schedule: {{cron: {'x' * 10_000}}}\n" + "".join(f"k{n}: 1\n" for n in range(99))
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "and 50 more"
    assert max(map(len, lines)) < 600
    with pytest.raises(ConfigError) as caught:
        load_settings(profile(MINIMAL), [f"{'k' * 10_000}=1"])
    assert len(str(caught.value)) < 600


def test_keys_of_other_types_are_unknown_keys(profile):
    with pytest.raises(ConfigError, match=r"line\.yaml: 1: unknown key"):
        load_settings(profile(MINIMAL + "1: x\nnull: y\n"))


# What YAML is made of, and what settings are: more of it is read than of any text.
PIECES = [
    *(
        "\n",
        "  ",
        ": ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
        "<<: *a",
        "!!int ",
        *(
            "!!binary ",
            "!!bool ",
            "!!timestamp ",
            "!!float ",
            "!!set ",
            "!!omap ",
            "!!pairs ",
            "!!python/name:os ",
        ),
        "|\n",
        "'",
        '"',
    ),
    *(
        "source",
        "model",
        "uri",
        "package",
        "run",
        "batch_size",
        "audit",
        "passphrase",
        "explainer",
        "options",
    ),
    *(
        "1",
        "0x1f",
        "1e999",
        ".nan",
        "null",
        "2026-11-27",
        "0:99",
        "\\ud800",
        "%YAML 9.9\n",
        "---\n",
        "#",
        "\t",
        "\0",
    ),
]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.binary())
)
def test_whatever_a_file_holds_is_settings_or_a_sentence(tmp_path, content):
    path = tmp_path / "line.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load_settings(path), Settings)
    except ConfigError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - it may load
        str(error).encode()
