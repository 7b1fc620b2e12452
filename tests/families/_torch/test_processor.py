"""What Linux says of a processor."""

from __future__ import annotations

from pathlib import Path

from makegood.families._torch.processor import flags, has_bf16, has_matrix_bf16


def test_features_are_read_from_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu other\n")
    assert flags(tmp_path / "cpuinfo") >= {"fpu", "avx512_bf16", "amx_bf16"}
    assert "other" not in flags(tmp_path / "cpuinfo")


def test_a_system_that_tells_nothing_has_no_features(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("model: unknown\n")
    assert flags(tmp_path / "missing") == flags(tmp_path / "empty") == frozenset()


def test_a_unit_for_matrices_is_one_for_products() -> None:
    assert has_bf16() == bool({"avx512_bf16", "amx_bf16"} & flags())
    assert has_matrix_bf16() <= has_bf16()
