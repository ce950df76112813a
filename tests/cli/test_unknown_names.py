"""A slip of the keyboard is refused, with what is nearest: it must not look like a lot without findings."""

import pytest


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("report period --lot L003", "there is no lot 'L003' in the record; the closest are L002, L001"),
        (
            "report period --lot L001 --station S9",
            "there is no station 'S9' in the record; the closest are S2, S1",
        ),
        ("report part P00004", "there is no part 'P00004' in the record; the closest are P0000"),
        ("report part P000004 --lot L001", "part 'P000004' is not in lot 'L001', but in 'L002'"),
        ("report finding R000001-0099", "there is no finding 'R000001-0099': the closest are R000001-00"),
        ("disposition R000001-99 --history", "there is no finding 'R000001-99': the closest are R000001-00"),
        ("audit part P00004", "there is no part 'P00004' in the record; the closest are"),
        ("audit log --lot XYZ", "there is no lot 'XYZ' in the record; there are L001, L002"),
        ("audit log --part P00004", "there is no part 'P00004'"),
        (
            "audit log --actor kensaa",
            "there is no person or actor 'kensaa' in the record; the closest is kensa",
        ),
        ("findings --lot l001", "there is no lot 'l001' in the record; the closest are L001, L002"),
        (
            "findings --class scrach",
            "there is no class 'scrach' in the record; the closest are scratch, patch",
        ),
        ("findings --person eve", "there is no person or actor 'eve'"),
        ("audit trace --model lin --lot L001", "there is no model 'lin': give its name"),
        ("audit trace --model line --lot L003", "there is no lot 'L003'"),
    ],
)
def test_a_name_that_no_record_has_is_refused(inspected, command, said):
    done = inspected.kensa(*command.split(), check=2)
    assert said in done.stderr
    assert done.stdout == ""


def test_no_report_number_is_used_up(inspected):
    before = inspected.json("audit", "log")
    inspected.kensa("report", "period", "--lot", "L003", check=2)
    assert inspected.json("audit", "log") == before
    assert not list(inspected.folder.glob("reports/P*"))


def test_what_is_known_and_has_no_findings_is_an_empty_list_that_says_so(inspected):
    told = inspected.kensa("findings", "--lot", "L001", "--max-score", "0").stdout
    assert told == "no findings with lot L001, max score 0.0\n"
    told = inspected.kensa("audit", "log", "--action", "report.unsealed").stdout
    assert told == "no events with action report.unsealed\n"
    assert inspected.json("findings", "--lot", "L001", "--max-score", "0") == []
