"""A benchmark's result, written with the machine and the versions that it was measured on."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def write(name: str, figures: dict[str, Any], packages: tuple[str, ...] = ()) -> None:
    """Write `results/NAME.json` and print it; `figures` hold what was measured, its target and whether it is met."""
    result = {
        "benchmark": name,
        **figures,
        "machine": machine(),
        "versions": versions(packages),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def machine() -> dict[str, Any]:
    """Return what a reader needs to compare timings: processor, cores, memory, system."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def memory_gb() -> float | None:
    """Return the memory of the machine, None where the system does not tell."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the version of Python and of each package that is installed."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
