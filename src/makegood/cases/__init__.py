"""The built-in cases: a YAML file each, on real data that a dependency ships, that are published, or that the user brings.

What a package ships is read where it lies; that package is not imported. What is published is fetched by its checksum.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from makegood.case import Case
from makegood.errors import CaseError, MissingExtra, Problem, nearest

if TYPE_CHECKING:
    import pyarrow as pa

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Builtin:
    """A built-in table: how it is read, and where it is from."""

    read: Callable[[], pa.Table]
    package: str
    extra: str
    source: str


@dataclass(frozen=True)
class Published:
    """A built-in table that lies elsewhere: the address and SHA-256 of the file of each part, which `column` names."""

    files: Mapping[str, tuple[str, str]]
    column: str
    source: str


@dataclass(frozen=True)
class Elsewhere:
    """A table that may not be fetched for everybody: where it is to be had, and what it looks like."""

    looks: str
    source: str


def names() -> tuple[str, ...]:
    """Return the names of the built-in cases, sorted.

    >>> names()
    ('credit-risk', 'diagnosis', 'digits', 'essay-score', 'support-intent')
    """
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def load(name: str) -> Case:
    """Return a built-in case; raises `CaseError` with the nearest name."""
    if name not in names():
        raise CaseError(Problem("case", name, f"a case file, or one of {', '.join(names())}", nearest(name, names())))
    return Case.load(HERE / f"{name}.yaml")


def published(name: str) -> Published | None:
    """Return where the files of a built-in table are published; None where it comes otherwise."""
    table = TABLES.get(name)
    return table if isinstance(table, Published) else None


def builtin(name: str) -> pa.Table:
    """Return a built-in table that a package ships.

    Raises `CaseError` for an unknown name and for a table that the user has to bring, `MissingExtra` where its package is not installed.
    """
    if name not in TABLES:
        raise CaseError(
            Problem("data.source", f"builtin:{name}", f"one of {', '.join(f'builtin:{n}' for n in TABLES)}", nearest(name, TABLES))
        )
    table = TABLES[name]
    if isinstance(table, Elsewhere):
        raise CaseError(Problem("data.source", f"builtin:{name}", f"--data FILE: {table.looks}", f"get it: {table.source}"))
    assert isinstance(table, Builtin), "what is published is fetched by who has a cache"
    return table.read()


def _shipped(package: str, path: str, extra: str) -> Path:
    """Return a data file inside an installed package, without importing the package."""
    spec = find_spec(package)
    file = Path(next(iter(spec.submodule_search_locations or ())), path) if spec else None
    if file is None or not file.exists():
        raise MissingExtra(
            Problem(f"data of {package}", "not installed", f"the file {path} of {package}", f"pip install 'makegood[{extra}]'")
        )
    return file


def _diagnosis() -> pa.Table:
    """Breast cancer Wisconsin (diagnostic): 569 fine-needle aspirates, 30 measurements of the cell nuclei (Street et al. 1993)."""
    import pyarrow as pa

    lines = _shipped("sklearn", "datasets/data/breast_cancer.csv", "").read_text(encoding="utf-8").splitlines()
    measures = (
        "radius",
        "texture",
        "perimeter",
        "area",
        "smoothness",
        "compactness",
        "concavity",
        "concave points",
        "symmetry",
        "fractal dimension",
    )
    header = [*(f"mean {m}" for m in measures), *(f"{m} error" for m in measures), *(f"worst {m}" for m in measures)]
    label = lines[0].split(",")[2:]  # the file names the two classes in its first line: malignant, benign
    rows = [line.split(",") for line in lines[1:]]
    columns = {name: pa.array([float(row[i]) for row in rows]) for i, name in enumerate(header)}
    return pa.table({**columns, "diagnosis": pa.array([label[int(row[-1])] for row in rows])})


def _credit_risk() -> pa.Table:
    """Card applications at a Brazilian retail chain: 40,000 rows (PAKDD 2009 data-mining competition), as empulse ships them.

    In twelve rows a name stands before the flag `flag_mobile_phone` and shifts the rest by one cell: that cell is taken out.
    """
    import pyarrow as pa

    file = _shipped("empulse", "datasets/data/creditscoring2.csv.gz", "cases")
    header, *lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
    titles = [title.strip().lower().removeprefix("id_") for title in header.split("\t")][:-1]  # the last title is empty
    surplus = titles.index("flag_mobile_phone")
    rows = [line.split("\t") for line in lines]
    rows = [row[:surplus] + row[surplus + 1 :] if row[-1] else row[:-1] for row in rows]
    table: dict[str, list[str] | pa.Array] = {title: [row[i] for row in rows] for i, title in enumerate(titles)}
    bad = table.pop("target_label_bad=1")
    numbers = ("age", "months_in_residence", "months_in_the_job", "mate_income", "personal_net_income", "payment_day", "shop_rank")
    for title in (*numbers, "quant_banking_accounts", "quant_additional_cards_in_the_application"):
        table[title] = pa.array([float(v) if v else None for v in table[title]])
    return pa.table({**table, "defaulted": pa.array([{"0": "no", "1": "yes"}.get(str(v)) for v in bad])})


def _digits() -> pa.Table:
    """Handwritten digits: 1,797 images of 8 × 8 pixels (Alpaydin & Kaynak 1998), the test part of the UCI set, as scikit-learn ships them.

    The file counts the inked dots, 0 to 16, in each cell of 4 × 4 dots of the scan. They become shades from 0 to 255 in proportion,
    rounded: black is no ink, white a full cell, and each of the 17 counts keeps a shade of its own (so does `galleries.arrays`).
    """
    import numpy as np
    import pyarrow as pa

    lines = gzip.decompress(_shipped("sklearn", "datasets/data/digits.csv.gz", "").read_bytes()).decode("ascii").splitlines()
    cells = np.array([line.split(",") for line in lines], dtype=np.float64)
    shades = np.rint(cells[:, :-1] * (255 / 16)).astype(np.uint8)
    image = pa.field("image", pa.binary(), metadata={b"shape": b"8,8,1"})
    columns = [pa.array([row.tobytes() for row in shades], pa.binary()), pa.array(cells[:, -1].astype(np.int64))]
    return pa.table(columns, schema=pa.schema([image, pa.field("digit", pa.int64())]))


_BANKING77 = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data"
TABLES: dict[str, Builtin | Published | Elsewhere] = {
    "diagnosis": Builtin(
        _diagnosis, "scikit-learn", "", "Breast Cancer Wisconsin (Diagnostic), Street, Wolberg & Mangasarian 1993, CC BY 4.0"
    ),
    "credit-risk": Builtin(
        _credit_risk,
        "empulse",
        "cases",
        "PAKDD 2009 competition: card applications of a Brazilian retail chain, shipped by empulse 0.9 (MIT)",
    ),
    "digits": Builtin(
        _digits, "scikit-learn", "", "Optical Recognition of Handwritten Digits, Alpaydin & Kaynak 1998 (UCI), the test part, CC BY 4.0"
    ),
    "essay-score": Elsewhere(
        "a table with the columns essay_id, prompt, essay, rater1, rater2 and score, a whole number",
        "prompts 1 to 4 of the Automated Student Assessment Prize (Kaggle 2012, competition asap-aes), under the rules of that competition",
    ),
    "support-intent": Published(
        {
            "train": (f"{_BANKING77}/train.csv", "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b"),
            "test": (f"{_BANKING77}/test.csv", "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d"),
        },
        "part",
        "BANKING77, Casanueva, Temčinas, Gerz, Henderson & Vulić 2020, CC BY 4.0; fetched when it is first asked for",
    ),
}
