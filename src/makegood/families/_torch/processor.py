"""What the processor can do, as far as it changes how networks are trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@cache
def flags(path: Path = _CPUINFO) -> frozenset[str]:
    """Return the processor's features as Linux names them, none elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def has_matrix_bf16() -> bool:
    """Return whether products of bf16 matrices have a unit of their own (AMX), which makes any network faster."""
    return "amx_bf16" in flags()


def has_bf16() -> bool:
    """Return whether there are bf16 products at all: they make a network faster whose time goes into moving large, thin layers."""
    return has_matrix_bf16() or "avx512_bf16" in flags()
