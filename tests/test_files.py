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


def test_a_file_that_cannot_be_written_leaves_no_draft(tmp_path):
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(OSError):
        files.write_json(tmp_path / "plan.json", {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_nothing_is_written_through_a_link_that_lies_in_the_drafts_place(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "report.html.part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "report.html").symlink_to(tmp_path / "elsewhere")
    files.write_text(tmp_path / "report.html", "new")
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert (tmp_path / "report.html").read_text() == "new"


def test_a_sealed_record_that_was_changed_is_no_record(tmp_path):
    path = tmp_path / "seed.json"
    data = {"seed": 3, "epochs": [{"error": 0.1 + 0.2, "loss": float("inf")}], "at": None}
    files.write_sealed(path, data)
    assert files.read_sealed(path) == data
    path.write_text(path.read_text().replace("0.300", "0.200"))
    with pytest.raises(ValueError, match="was changed after it was written"):
        files.read_sealed(path)
    files.write_json(path, data)  # as before there were seals
    assert files.read_sealed(path) == data
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no record"):
        files.read_sealed(path)


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
