"""What settings name, tried before a run: all at once, within a limit, and nothing is written."""

import socket
from pathlib import Path

from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from configs.loading import load_settings
from db.chain.events import head
from db.engine import open_database
from operations import settings_probes
from operations.settings_probes import Probe, probe_settings


class Bucket(MemoryFileSystem):
    """An object store with one bucket, `there`; its endpoint fails as botocore has it for `dead`."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("bucket:/")

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        if "dead" in path:
            raise EndpointConnectionError("could not connect to the endpoint http://u:secret@dead")
        if not path.startswith("/there"):
            raise FileNotFoundError("The specified bucket does not exist")
        super().pipe_file(path, value)


class EndpointConnectionError(Exception):
    """No OSError, as botocore's are none."""


register_implementation("bucket", Bucket)


def probed(config: Path, *overrides: str) -> dict[str, Probe]:
    return {probe.key: probe for probe in probe_settings(load_settings(config, list(overrides)))}


def problems(found: dict[str, Probe]) -> dict[str, str]:
    return {key: probe.problem for key, probe in found.items() if probe.problem is not None}


def test_settings_in_order_are_told_and_leave_no_trace(make_line, pictures) -> None:
    line = make_line(artifacts={"uri": "bucket://there/line"})
    found = probed(line.config)
    assert list(found) == ["database.url", "source.uri", "model.package", "artifacts.uri", "report.folder"]
    assert problems(found) == {}
    assert found["database.url"].told.endswith("kensa.db: no record yet: the first run begins it")
    assert found["source.uri"].told == f"{pictures}: 24 pictures"
    assert "explained by sise-fast" in found["model.package"].told
    assert found["artifacts.uri"].told == "bucket://there/line: written to, read back, removed"
    assert found["report.folder"].told.endswith(f"not there yet, can be made in {line.folder}")
    assert all(probe.seconds is not None for probe in found.values())
    assert [path.name for path in line.folder.iterdir()] == ["line.yaml"]
    assert Bucket().find("/there") == []


def test_a_record_is_looked_at_and_not_written(inspected) -> None:
    def at() -> object:
        with open_database(inspected.database_url) as database, database.session() as session:
            return head(session)

    before = at()
    assert "that of this version" in probed(inspected.config)["database.url"].told
    assert at() == before


def test_all_mistakes_are_told_at_once(make_line, kensa, tmp_path) -> None:
    kensa("audit", "keygen", "line", "--out", tmp_path, "--no-passphrase")
    line = make_line(
        source={"uri": str(tmp_path / "none")},
        database={"url": "postgresql+psycopg://u:secret@127.0.0.1:1/kensa"},
        artifacts={"uri": "bucket://none/line"},
        audit={"checkpoints": "bucket://dead/notes", "signing_key": str(tmp_path / "line.key")},
        explainer={"method": "sise", "options": {"shar": 0.1}},
        report={"signature": {"pkcs12": str(tmp_path / "line.key")}},
    )
    found = probed(line.config)
    told = problems(found)
    assert told["source.uri"].startswith("expected an existing folder")
    assert "source.manifest" in told
    assert "does not answer" in told["database.url"]
    assert "no option 'shar'" in told["model.package"]
    assert told["artifacts.uri"] == (
        "/none/line: there is no such folder or bucket: make it, or correct the address"
    )
    assert "EndpointConnectionError" in told["audit.checkpoints"]
    assert "report.signature" in told
    assert "secret" not in str(told)
    assert found["audit.signing_key"].told == "checkpoints are signed by line"
    away = {key for key, probe in found.items() if probe.away}
    assert away == {"database.url", "audit.checkpoints"}


def test_a_host_that_never_answers_is_given_up(make_line, monkeypatch) -> None:
    monkeypatch.setattr(settings_probes, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://u:secret@127.0.0.1:{silent.getsockname()[1]}/kensa"
        probe = next(probe_settings(load_settings(make_line(database={"url": url}).config)))
    assert (probe.key, probe.away) == ("database.url", True)
    assert probe.problem == "no answer within 0.5 s: see that its server or disk is there and can be reached"


def test_a_database_that_takes_no_record_from_this_account_is_told(make_line, postgres_server) -> None:
    import psycopg

    from benchmarks import postgres

    url = postgres.new_database(postgres_server)
    reader = url.replace("kensa@", "only_reads@")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute("CREATE ROLE only_reads LOGIN")
    line = make_line(database={"url": reader})
    with open_database(url) as database:
        told = next(probe_settings(load_settings(line.config))).problem or ""
        assert "this account may not add to the record" in told
        database.migrate()
        told = next(probe_settings(load_settings(line.config))).problem or ""
        assert "this account may not read the record (permission denied for table kensa_schema" in told
        with psycopg.connect(url.replace("+psycopg", "")) as server:
            server.execute("GRANT SELECT ON kensa_schema TO only_reads")
        told = next(probe_settings(load_settings(line.config))).problem or ""
        assert "`kensa db grants` sets up for writing" in told


def test_the_command_prints_what_it_tried_and_ends_with_the_worst(make_line) -> None:
    line = make_line()
    told = line.kensa("config", "check").stdout.splitlines()
    assert [row.split()[:2] for row in told[:2]] == [["ok", "database.url"], ["ok", "source.uri"]]
    assert told[-1] == "settings are in order"
    away = ("--set", "database.url=postgresql+psycopg://u@127.0.0.1:1/kensa")
    wrong = ("--set", "artifacts.uri=bucket://none/line")
    for options, code, mistakes in (((*away,), 4, 1), ((*wrong,), 2, 1), ((*away, *wrong), 2, 2)):
        done = line.kensa("config", "check", *options, check=code)
        assert "in order" not in done.stdout
        lines = done.stderr.splitlines()
        assert len(lines) == mistakes
        keys = ("kensa: database.url: ", "kensa: artifacts.uri: ")
        assert all(each.startswith(keys) for each in lines)
