"""docs/data.md says what the benchmark's record says, and names options that exist."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

from tf_largebatch.records.data_spec import ImageNetSpec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
RECORD = json.loads((ROOT / "tools" / "records" / "benchmark_input.json").read_text())
ROWS = {row["pipeline"]: row for row in RECORD["rows"]}


def test_table_is_the_records():
    lines = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    shown = {name: (int(cpu), int(wall), float(ratio)) for name, cpu, wall, ratio in lines}
    assert shown == {
        name: (
            round(row["cpu_us_an_image"]),
            round(row["wall_us_an_image"]),
            round(row["ratio_to_limit"], 2),
        )
        for name, row in ROWS.items()
    }


def test_numbers_in_the_text_are_the_records():
    read, drawn, sequential, whole = (
        ROWS[name]["cpu_us_an_image"]
        for name in (
            "stage: + read",
            "stage: order and draws",
            "stage: sequential read",
            "training",
        )
    )
    extra = read - drawn - sequential
    assert f"costs {extra:.0f} us a picture more" in PAGE
    assert f"({100 * extra / whole:.0f} % of the whole" in PAGE
    assert f"Reading costs {100 * (read - drawn) / whole:.0f} % of a picture" in PAGE
    scaled = RECORD["scaled_decoding"]
    assert f"applies to {100 * scaled['share_of_crops']:.0f} % of the crops" in PAGE
    assert f"{scaled['psnr_db_median']} dB in the median" in PAGE


def test_shares_of_the_training_stack_are_the_records():
    text = " ".join(PAGE.split())
    for words, row in (
        ("The training stack reaches {} of", "training"),
        ("the exact evaluation stack {}.", "evaluation, short_side"),
    ):
        assert words.format(f"{ROWS[row]['ratio_to_limit']:.2f}") in text
    parsed, box, decoded, whole = (
        ROWS[f"stage: + {step}"]["cpu_us_an_image"]
        for step in ("parse", "crop box", "decode", "resize, round, mirror")
    )
    for words, cost in (
        ("Decoding the crop is {} % of", decoded - box),
        ("resizing, rounding and mirroring {} %,", whole - decoded),
        ("order, reading and parsing {} %,", parsed),
        ("the crop box {} %.", box - parsed),
    ):
        assert words.format(f"{100 * cost / whole:.0f}") in text


def test_every_option_of_the_source_is_on_the_page():
    from tf_largebatch.data.imagenet import open_folder

    options = set(inspect.signature(open_folder).parameters) - {"folder", "spec", "classes"}
    fields = {field.name for field in dataclasses.fields(ImageNetSpec)} - {"name"}
    for name in options | fields:
        assert f"`{name}" in PAGE, name


def test_record_names_no_folder_of_a_machine():
    assert not re.search(r'"[^"]*(?<![\w,])/(?:\w+/)+', json.dumps(RECORD))
