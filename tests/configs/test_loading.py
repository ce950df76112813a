"""Settings: precedence, and mistakes answered with origin, key and what was expected."""

from pathlib import Path

import pytest

from configs.loading import ConfigError, check_paths, load_settings, profile_path

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
