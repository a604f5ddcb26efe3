import json

import pytest

from tf_largebatch.records import files


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    files.write_json(path, {"a": 1})

    def fail(*arguments):
        raise OSError("killed here")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="killed here"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}


def test_what_is_to_outlive_a_power_cut_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    path = tmp_path / "dataset.json"
    seen = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: seen.append(path.exists()))
    files.write_text(path, "{}")
    assert seen == []
    path.unlink()
    files.write_text(path, "{}", sync=True)
    assert seen == [False]


def test_json_keeps_the_words_as_they_are(tmp_path):
    files.write_json(tmp_path / "a.json", {"title": "ε-greedy", "rate": 0.1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n "title": "ε-greedy",\n "rate": 0.1\n}\n'
    )
    assert json.loads((tmp_path / "a.json").read_bytes())["title"] == "ε-greedy"


def test_a_table_has_every_digit_and_leaves_a_field_empty_where_there_is_no_number(tmp_path):
    rows = [("a, b", 0.1 + 0.2, 3), (None, float("nan"), float("-inf"))]
    files.write_csv(tmp_path / "rows.csv", ("label", "error", "seeds"), rows)
    assert (tmp_path / "rows.csv").read_text() == (
        'label,error,seeds\n"a, b",0.30000000000000004,3\n,,\n'
    )
