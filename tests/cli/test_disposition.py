"""People, dispositions and the export of reviewed findings, through the command line."""

import csv
import hashlib
import io
import json
import shutil
import sys

import pytest

from classifiers.data.reading import load_dataset
from cli import sign_in
from db.chain.events import Actor
from db.columns import utc_now
from db.dispositions.decide import dispose
from db.dispositions.signatures import check_signatures
from db.engine import open_database
from db.people.people import add_person
from db.people.sign_in import authenticate
from db.queries.runs import list_runs
from db.schema import ArtifactRetention
from tests.people import CHEAP, quality_engineer

ENGINEER, MANAGER, BOSS = "engineer-password", "manager-password", "boss-password"


@pytest.fixture
def recorded(make_line, inspect_all, once):
    """A recorded run in which nobody is known yet; scrap needs a second person."""
    line = make_line(dispositions={"four_eyes": ["scrap"]})
    return once("inspected with four eyes", line, lambda: inspect_all(line.config))


@pytest.fixture
def line(recorded):
    """The same with a boss, an engineer and a manager."""
    with open_database(recorded.database_url) as database:
        who = Actor("setup", "human")
        for login, role, password in (
            ("boss", "administrator", BOSS),
            ("eve", "quality-engineer", ENGINEER),
            ("max", "quality-manager", MANAGER),
        ):
            given = {"name": f"{login.title()} Person", "role": role, "password": password, "hasher": CHEAP}
            add_person(database, login, by=who, **given)
            if login == "boss":
                who = authenticate(database, "boss", BOSS, account=who, hasher=CHEAP)
    return recorded


@pytest.fixture
def say(monkeypatch):
    """Lay lines on standard input."""

    def lines(*texts: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{text}\n" for text in texts)))

    return lines


@pytest.fixture
def decide(line, say):
    """Decide about a finding as Eve, or as somebody else."""

    def run(finding, decision, *more, login="eve", password=ENGINEER, check=0):
        say(password)
        return line.kensa(
            *("disposition", finding, "--decision", decision, "--reason", "seen on the part"),
            *(*more, "--as", login, "--password-stdin"),
            check=check,
        )

    return run


def test_people_are_added_changed_disabled_and_listed(recorded, say):
    kensa = recorded.kensa
    assert "nobody yet" in kensa("people", "list").stdout
    say("short")
    boss = ("people", "add", "boss", "--name", "B. Oss", "--role", "administrator", "--password-stdin")
    assert "12 characters or more" in kensa(*boss, check=2).stderr
    say(BOSS)
    assert "boss (B. Oss, administrator): added" in kensa(*boss).stdout
    eve = ("people", "add", "eve", "--name", "E. Ve", "--role", "auditor", "--password-stdin")
    say(ENGINEER)
    assert "say with --as LOGIN which administrator" in kensa(*eve, check=2).stderr
    say(BOSS, ENGINEER)
    kensa(*eve, "--as", "boss")
    say(BOSS)
    kensa("people", "change", "eve", "--role", "quality-engineer", "--as", "boss", "--password-stdin")
    say(ENGINEER, "another password")
    assert "has a new password" in kensa("people", "passwd", "eve", "--password-stdin").stdout
    say(ENGINEER, "and another one")
    told = kensa("people", "passwd", "eve", "--password-stdin", check=2).stderr
    assert told.startswith("kensa: sign-in failed: login or password is wrong")
    say(BOSS)
    kensa("people", "disable", "eve", "--as", "boss", "--reason", "left", "--password-stdin")
    rows = {row["login"]: row for row in recorded.json("people", "list")}
    assert (rows["eve"]["role"], rows["eve"]["active"], rows["boss"]["active"]) == (
        "quality-engineer",
        False,
        True,
    )
    assert "password" not in rows["eve"]
    say(BOSS)
    kensa("people", "enable", "eve", "--as", "boss", "--password-stdin")
    assert "active" in kensa("people", "list").stdout
    say()
    assert "expected a line with the password of boss" in kensa(*eve, "--as", "boss", check=2).stderr
    assert kensa("audit", "verify").stdout.startswith("intact")


def test_a_password_is_typed_at_a_terminal_alone(recorded, say, monkeypatch):
    asked = []

    def prompt(text, **options):
        asked.append((text, options["hide_input"], options["confirmation_prompt"]))
        return BOSS

    boss = ("people", "add", "boss", "--name", "B. Oss", "--role", "administrator")
    say(BOSS)
    told = recorded.kensa(*boss, check=2).stderr
    assert "no terminal to type a password at: give --password-stdin" in told
    monkeypatch.setattr(sign_in.typer, "prompt", prompt)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    recorded.kensa(*boss)
    recorded.kensa("people", "change", "boss", "--name", "The Boss", "--as", "boss")
    assert asked == [("New password of boss", True, True), ("Password of boss", True, False)]


def test_a_decision_is_shown_before_it_is_signed(line, decide):
    finding = line.json("findings")[0]
    shown = (
        f"finding      {finding['reference']}",
        finding["part"],
        f"{finding['class_name']}, class score {finding['class_score']:.3f}",
        f"{finding['score']:.3f} of the picture, flagged from {finding['threshold']:.3f}",
        "decision     confirm",
        "meaning      responsibility",
    )
    refused = decide(finding["reference"], "confirm", password="not the password", check=2)  # noqa: S106
    assert all(text in refused.stdout for text in shown)
    assert "signed by" not in refused.stdout
    assert line.json("disposition", finding["reference"], "--history") == []
    done = decide(finding["reference"], "confirm")
    assert f"signed by Eve Person: {finding['reference']} confirm, in effect" in done.stdout
    (row,) = line.json("disposition", finding["reference"], "--history")
    assert row["signature"]["digest"][:12] in done.stdout
    assert (row["decision"], row["person"], row["reason"], row["state"]) == (
        "confirm",
        "eve",
        "seen on the part",
        "in effect",
    )
    event = line.json("audit", "log", "--action", "disposition.made")[0]
    assert (event["actor_id"], event["actor_name"], event["actor_role"]) == (
        "eve",
        "Eve Person",
        "quality-engineer",
    )


def test_a_table_of_decisions_is_signed_once_or_refused_as_a_whole(line, say, tmp_path):
    rows = line.json("findings")
    first, second, third = (row["reference"] for row in rows[:3])
    table = tmp_path / "decisions.csv"

    def run(text, *more, password=ENGINEER, check=0):
        table.write_text(text, encoding="utf-8-sig")
        say(password)
        command = ("disposition", "--from", str(table), "--as", "eve", "--password-stdin", *more)
        return line.kensa(*command, check=check)

    # Every mistake is named at once, by its line, before anybody types a password.
    refused = run(
        f"finding,decision,class,reason,my note\n{first},confirm,,seen,x\n\nR000001-0999,confirm,,seen,\n"
        f"{second},scrap,,deep,\n{third},reclassify,nonsense,other,\n{third},,,,\n",
        check=2,
    )
    told = refused.stderr.splitlines()
    assert told[0].endswith("decisions.csv: 4 mistakes, and nothing was decided:")
    assert "line 4: there is no finding 'R000001-0999': the closest are" in told[1]
    assert f"line 5: finding {second}: scrap is not possible; first may come" in told[2]
    assert f"line 6: finding {third}: reclassify needs another class" in told[3]
    assert told[4] == "  line 7: decision and reason left empty"
    refused = run(
        f"finding;decision;reason\n{first};confirm;\n{first};confirm;a;b\n;;\n{first};;x\n", check=2
    )
    assert "line 2: reason left empty" in refused.stderr
    assert "line 3: more cells than columns" in refused.stderr
    assert "line 5: decision left empty" in refused.stderr
    for text, why in {
        "finding,why\n": "has no column decision and no column reason; its first line names the columns",
        "finding,decision,reason\n": "holds 0 decisions; give 1 to 1000",
        f"finding,decision,reason\n{first},confirm,a\n{first.lower()},confirm,b\n": (
            f"line 3: finding {first} is in line 2 already"
        ),
        "finding,finding,decision,reason\n": "has the column finding more than once",
        'finding,decision,reason\n"x': "is no CSV after line 1",
        '"finding,decision,reason': "is no CSV",
    }.items():
        assert why in run(text, check=2).stderr
    good = f'finding,decision,reason\n{first},confirm,"seen, with the nail"\n{second},confirm,seen\n'
    assert "sign-in failed" in run(good, password="not the password", check=2).stderr  # noqa: S106
    assert "give one of --decision" in run(good, "--history", check=2).stderr
    assert "none beside it" in run(good, "--reason", "x", check=2).stderr
    assert line.json("disposition", first, "--history") == []

    done = run(good).stdout
    assert "to be signed: 2 decisions, meaning responsibility" in done
    assert "seen, with the nail" in done
    assert "signed by Eve Person: 2 decisions (2 confirm)\n" in done
    (one,), (two,) = (line.json("disposition", name, "--history") for name in (first, second))
    assert one["signature"] == two["signature"]
    assert one["signature"]["digest"][:12] in done
    done = run(f"finding,decision,reason\n{first},scrap,deep\n{second},rework,can be ground out\n").stdout
    assert "scrap (awaits approval)" in done
    assert "2 decisions (1 scrap, 1 rework); 1 of them await approval by a quality manager" in done
    with open_database(line.database_url) as database, database.session() as session:
        assert list(check_signatures(session)) == []
    assert line.kensa("audit", "verify").stdout.startswith("intact")


def test_a_second_person_approves_or_refuses(line, decide, say):
    first, second = (row["reference"] for row in line.json("findings")[:2])
    for finding in (first, second):
        decide(finding, "confirm")
        assert "awaits approval by a quality manager" in decide(finding, "scrap").stdout
    assert "confirm (scrap awaits approval)" in line.kensa("findings").stdout
    assert "scrap by eve awaits approval" in decide(first, "rework", check=2).stderr

    def answer(finding, option, login, password, check=0):
        say(password)
        command = ("disposition", finding, option, "--reason", "agreed", "--as", login, "--password-stdin")
        return line.kensa(*command, check=check)

    assert "'eve' made this decision" in answer(first, "--approve", "eve", ENGINEER, check=2).stderr
    done = answer(first, "--approve", "max", MANAGER)
    assert "meaning      approval" in done.stdout
    assert "decided by   eve on " in done.stdout
    assert f"signed by Max Person: {first} scrap, in effect" in done.stdout
    assert f"{second} scrap, refused" in answer(second, "--refuse", "max", MANAGER).stdout
    states = {row["reference"]: row["disposition"] for row in line.json("findings")}
    assert (states[first], states[second]) == ("scrap", "confirm")
    history = line.kensa("disposition", second, "--history").stdout
    assert "max: refuse, agreed" in history
    assert line.kensa("audit", "verify").stdout.startswith("intact")
    with open_database(line.database_url) as database, database.session() as session:
        assert list(check_signatures(session)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --decision, --approve, --refuse, --history and --from"),
        (("--decision", "confirm", "--approve"), "give one of --decision"),
        (("--decision", "confirm", "--reason", "x"), "give --as LOGIN and --reason TEXT"),
        (("--decision", "confirm", "--as", "eve"), "give --as LOGIN and --reason TEXT"),
        (("--decision", "scrap", "--reason", "x", "--as", "eve"), "scrap is not possible; first may come"),
        (("--decision", "confirm", "--reason", " ", "--as", "eve"), "a decision needs a reason"),
        (("--approve", "--reason", "x", "--as", "max"), "no decision awaits approval"),
    ],
)
def test_what_cannot_be_is_refused_before_a_password_is_asked_for(line, options, message):
    finding = line.json("findings")[0]["reference"]
    assert message in line.kensa("disposition", finding, *options, check=2).stderr


def test_reviewed_findings_become_training_data(line, decide, tmp_path):
    rows = line.json("findings")
    confirmed, changed, overruled, lost, pruned, waiting, *untouched = rows
    classes = classes_of(line)
    other = next(name for name in classes if name not in ("good", changed["class_name"]))
    decide(confirmed["reference"], "confirm")
    decide(confirmed["reference"], "rework")
    decide(changed["reference"], "reclassify", "--class", other)
    decide(overruled["reference"], "overrule")
    decide(lost["reference"], "confirm")
    decide(pruned["reference"], "confirm")
    with open_database(line.database_url) as database:  # the first decision about it still awaits approval
        eve = authenticate(database, "eve", ENGINEER, account=Actor("x"), hasher=CHEAP)
        dispose(
            database,
            waiting["reference"],
            decision="confirm",
            reason="x",
            signer=eve,
            four_eyes={"confirm"},
        )
        row = ArtifactRetention(
            artifact_digest=pruned["image_digest"],
            state="pruned",
            policy="older than 1 d",
            created_at=utc_now(),
        )
        with database.write() as recorder:
            recorder.add([row], action="test", actor=Actor("x"), entity="artifact", entity_id=row.id)
    digest = lost["image_digest"]
    stored = line.folder / "artifacts" / "sha256" / digest[:2] / digest[2:4] / digest
    stored.unlink()

    done = line.kensa("dataset", "export", str(tmp_path / "set"), check=3)
    assert (
        f"left out: {lost['reference']} (picture {digest[:12]}): artefact {digest} is missing" in done.stderr
    )
    assert f"left out: {pruned['reference']} (picture {pruned['image_digest'][:12]}): pruned by policy" in (
        done.stderr
    )
    assert f"not reviewed yet: {len(untouched) + 1} pictures" in done.stderr
    assert ": 3 pictures (" in done.stdout
    assert f"kensa train {tmp_path}/set/labels.csv --out MODEL --group-column group --good-class good" in (
        done.stdout
    )

    with (tmp_path / "set" / "labels.csv").open() as file:
        table = {row["image"]: row for row in csv.DictReader(file)}
    read = load_dataset(tmp_path / "set" / "labels.csv", group_column="group", good_class="good")
    labels = {item.sha256: item.labels for item in read.items}
    assert labels == {
        confirmed["image_digest"]: (confirmed["class_name"],),
        changed["image_digest"]: (other,),
        overruled["image_digest"]: ("good",),
    }
    for item in read.items:
        assert item.path.name == f"{item.sha256}.png"
        assert hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256
        assert item.group == table[item.name]["lot"] != ""
    load_dataset(tmp_path / "set" / "labels.csv", group_column="lot", good_class="good")

    lines = (tmp_path / "set" / "provenance.jsonl").read_text().splitlines()
    origins = {entry["image_digest"]: entry for entry in map(json.loads, lines)}
    assert set(origins) == set(labels)
    origin = origins[confirmed["image_digest"]]
    (finding,) = origin["findings"]
    assert (origin["part"], origin["labels"]) == (confirmed["part"], [confirmed["class_name"]])
    assert (finding["reference"], finding["model_digest"], finding["settings_digest"]) == (
        confirmed["reference"],
        confirmed["model_digest"],
        confirmed["settings_digest"],
    )
    assert [d["decision"] for d in finding["dispositions"]] == ["confirm", "rework"]
    history = line.json("disposition", confirmed["reference"], "--history")
    for told, row in zip(finding["dispositions"], history, strict=True):
        assert (told["person"], told["reason"], told["at"]) == (
            row["person"],
            row["reason"],
            row["created_at"],
        )
        assert told["signature_digest"] == row["signature"]["digest"]
        event = json.loads(line.kensa("audit", "show", str(told["event"]["sequence"])).stdout)
        assert (event["action"], event["hash"]) == ("disposition.made", told["event"]["hash"])

    (event,) = line.json("audit", "log", "--action", "dataset.exported")
    content = (tmp_path / "set" / "labels.csv").read_bytes()
    assert event["payload"]["labels_digest"] == hashlib.sha256(content).hexdigest()
    assert (event["payload"]["pictures"], event["payload"]["excluded"]) == (3, 2)
    refused = line.kensa("dataset", "export", str(tmp_path / "set"), check=2)
    assert "is not an empty folder" in refused.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def classes_of(line) -> list[str]:
    with open_database(line.database_url) as database, database.session() as session:
        return list(list_runs(session)[0].model.classes)


def test_an_export_of_nothing_leaves_nothing(line, decide, tmp_path):
    finding = line.json("findings")[0]
    decide(finding["reference"], "confirm")
    told = line.kensa("dataset", "export", str(tmp_path / "set"), "--until", "2020-01-01", check=2)
    assert "nothing to export" in told.stderr
    # What the record does not know is no empty data set: it says what there is, as `kensa findings` does.
    for option, name in (
        ("--lot", "none"),
        ("--part", finding["part"] + "x"),
        ("--station", "S-0"),
        ("--class", "pitt"),
    ):
        refused = line.kensa("dataset", "export", str(tmp_path / "set"), option, name, check=2).stderr
        assert refused == line.kensa("findings", option, name, check=2).stderr
        assert f"there is no {option[2:]} {name!r} in the record; " in refused
    assert list(tmp_path.glob("*set*")) == []
    assert line.json("audit", "log", "--action", "dataset.exported") == []
    (tmp_path / "set").mkdir()
    line.kensa("dataset", "export", str(tmp_path / "set"), "--lot", finding["lot"])
    assert (tmp_path / "set" / "labels.csv").is_file()


def test_no_cell_of_exported_labels_is_run_by_a_spreadsheet(make_line, inspect_all, pictures, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(pictures, source)
    with (source / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "'quoted", "plain"]
    for number, row in enumerate(rows):
        row["part"] = row["lot"] = hostile[number % len(hostile)]
    with (source / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    line = make_line("hostile", source={"uri": str(source)})
    inspect_all(line.config)
    findings = line.json("findings")
    with open_database(line.database_url) as database:
        eve = quality_engineer(database, ENGINEER)
        for finding in findings:
            dispose(database, finding["reference"], decision="confirm", reason="seen", signer=eve)
    line.kensa("dataset", "export", str(tmp_path / "set"))
    with (tmp_path / "set" / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    parts = {finding["image_digest"]: finding["part"] for finding in findings}
    assert len(table) == len(parts)
    for row in table:
        part = parts[row["image"].removeprefix("pictures/").removesuffix(".png")]
        assert row["part"] == row["lot"] == row["group"] == (part if part == "plain" else f"'{part}")
    origins = (tmp_path / "set" / "provenance.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in origins} == set(parts.values())
    assert {part[0] for part in parts.values()} >= {"=", "+", "-", "@"}
