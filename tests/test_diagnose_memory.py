"""Instruments whose vectors do not fit are refused before they start."""

import re

import pytest

from tf_largebatch.diagnostics import command as diagnose
from tf_largebatch.diagnostics import requirements
from tf_largebatch.records import memory
from tf_largebatch.records.errors import InputError

RESNET50 = 25_557_032


def check(monkeypatch, there, *wanted, products=60, directions=100, weights=RESNET50):
    monkeypatch.setattr(requirements, "available_bytes", lambda: there)
    requirements.check_memory(
        list(wanted), weights=weights, products=products, directions=directions, image_bytes=10**9
    )


def test_lanczos_of_resnet50_is_refused_where_its_vectors_do_not_fit(monkeypatch):
    # (60 + 30) x 8 x 25,557,032 + 1e9 = 19.4e9; 0.9 x 16e9 - 1e9 = 13.4e9 are 65 vectors: 35 + 30.
    with pytest.raises(InputError) as error:
        check(monkeypatch, 16 * 10**9, "noise_scale", "hessian")
    assert str(error.value) == (
        "--hessian needs about 19.4 GB of memory (60 products of 25,557,032 weights, 8 bytes each, "
        "and the images). Available: 16.0 GB. Use fewer --products (at most 35 here) or fewer "
        "--images"
    )
    check(monkeypatch, 16 * 10**9, "noise_scale", "hessian", products=35)
    with pytest.raises(InputError):
        check(monkeypatch, 16 * 10**9, "hessian", products=36)


def test_the_manifold_of_sharpness_is_refused_with_the_flag_that_makes_it_smaller(monkeypatch):
    # 130 x 8 x 25,557,032 + 1e9 = 27.6e9
    with pytest.raises(InputError, match=r"needs about 27.6 GB .* fewer --directions"):
        check(monkeypatch, 20 * 10**9, "sharpness")
    check(monkeypatch, 31 * 10**9, "sharpness")


def test_a_machine_too_small_for_any_of_it_is_told_so(monkeypatch):
    with pytest.raises(InputError, match="Use a larger machine or fewer --images"):
        check(monkeypatch, 2 * 10**9, "hessian")
    with pytest.raises(InputError, match="--drift needs about"):
        check(monkeypatch, 2 * 10**9, "drift")


def test_a_small_model_fits_and_an_unknown_memory_refuses_nothing(monkeypatch):
    check(monkeypatch, 4 * 10**9, "sharpness", "hessian", weights=77_754)
    check(monkeypatch, None, "sharpness", "hessian")


def test_the_memory_is_the_smaller_of_the_machines_and_the_containers(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:   5000 kB\n")
    assert memory.available_bytes(meminfo, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 900000\ninactive_file 50000\n")
    assert memory.available_bytes(meminfo, tmp_path) == 2_050_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(meminfo, tmp_path) == 5000 * 1024
    assert memory.available_bytes(tmp_path / "none", tmp_path / "none") is None


def test_the_flags_that_a_refusal_names_exist():
    known = diagnose.make_parser().format_help()
    for flag in ("--products", "--directions", "--images"):
        assert re.search(rf"^\s+{flag}\b", known, flags=re.MULTILINE), flag
