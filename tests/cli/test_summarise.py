"""`run.py summarise`: from a table on disk, with the rules that are asked for."""

import dataclasses

import face_rows
import numpy as np
import pandas as pd
import pytest

from mtl_face.cli.flags import event_rules
from mtl_face.cli.main import main
from mtl_face.evaluation import face_files
from mtl_face.evaluation.face_events import EventRules


@pytest.fixture
def table(tmp_path):
    answer = np.zeros((40, 12))
    answer[10:14, 6] = 0.9
    answer[20:36, 6] = 0.8
    faces = face_rows.video(np.ones(40, bool), au_probability=answer, au_present=answer > 0.5)
    face_files.write(faces, tmp_path / "talk.csv")
    return tmp_path / "talk.csv"


def smiles(path):
    events = pd.read_csv(path)
    return events[events.what == "au12"].duration_ms.tolist()


def test_files_and_rules(table, capsys):
    output, plot = table.with_name("out"), table.with_name("t.svg")
    assert main(["summarise", str(table), f"--output={output}", f"--plot={plot}"]) == 0
    assert smiles(f"{output}_events.csv") == [160, 640]
    rule = "--event_rule=shortest_ms=200"
    assert main(["summarise", str(table), f"--output={output}", rule]) == 0
    assert smiles(f"{output}_events.csv") == [640]
    assert plot.read_text().startswith("<svg")
    said = capsys.readouterr().out
    assert "a.mp4, person 1: in view 100% of 00:02" in said
    assert f"summary: {output}_events.csv" in said
    assert f"timeline: {plot}" in said


def test_printed_alone(table, capsys):
    before = sorted(table.parent.iterdir())
    assert main(["summarise", str(table)]) == 0
    assert "AU12 (lip corner puller) 50%" in capsys.readouterr().out
    assert sorted(table.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--event_rule=kept=1"], "no rule of events"),
        (["--plot=a.pdf"], "no format of timelines"),
    ],
)
def test_mistakes_are_told_before_the_table_is_read(tmp_path, capsys, flags, words):
    assert main(["summarise", str(tmp_path / "absent.csv"), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_table_that_is_none(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    assert main(["summarise", str(tmp_path / "a.csv")]) == 2
    assert "run.py predict" in capsys.readouterr().err


def test_the_help_states_the_defaults():
    import argparse

    parser = argparse.ArgumentParser()
    event_rules(parser)
    text = " ".join(parser.format_help().split())
    for field in dataclasses.fields(EventRules):
        value = "no" if field.default is False else f"{field.default:g}"
        assert f"{field.name}={value}" in text
