"""The whole loop on images: scikit-learn's digits as a folder of files, as arrays, and as a table of paths."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

import makegood as mg
from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Run
from makegood.draft import Answers, draft
from makegood.errors import CaseError, DataError
from makegood.model import load
from makegood.stages.prepare import prepare_rows

CASE = """
case: digits
data: {source: SOURCE, outcome: label, image: {size: [8, 8], channels: 1}}
decision:
  unit: points
  actions:
    take: {payoff: {0: 1, 1: -1, 2: -1}}
    leave: {payoff: 0}
train: {budget: 2s, families: [linear, lightgbm]}
serve: {reasons: 1}
"""
N = 240


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same digits in all forms."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    kept = np.flatnonzero(digits.target < 3)[:N]
    lines = ["file,label"]
    for i in kept:
        name = f"digits/{digits.target[i]}/{i:04}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.rint(digits.images[i] * (255 / 16)).astype(np.uint8)).save(folder / name)
        lines.append(f"{name},{digits.target[i]}")
    (folder / "digits.csv").write_text("\n".join(lines) + "\n")
    (folder / "digits" / "0" / "notes.txt").write_text("no image")
    (folder / "digits" / "0" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    np.savez(folder / "digits.npz", images=digits.images[kept], labels=digits.target[kept])
    return folder


def case(space: Path, source: str, *changes: tuple[str, str]) -> Case:
    text = CASE.replace("SOURCE", source)
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return Case.parse(text, folder=space)


@pytest.fixture(scope="module")
def runs(space: Path) -> dict[str, Run]:
    return {name: pipeline.run(case(space, name), workspace=space / name[-3:]) for name in ("digits", "digits.npz")}


def a_file(space: Path, label: int = 0) -> bytes:
    return min((space / "digits" / str(label)).glob("0*.png")).read_bytes()


@pytest.mark.parametrize("source", ["digits", "digits.npz"])
def test_from_images_to_decisions(space: Path, runs: dict[str, Run], source: str) -> None:
    run = runs[source]
    assert run.evaluation is not None
    assert run.bundle is not None
    assert (run.evaluation.verdict, run.evaluation.value.value > 0.3) == ("deploy", True)
    model = load(run.bundle)
    rows = [{"image": a_file(space, label)} for label in (0, 1, 2)]
    alone = [model.decide(row) for row in rows]
    assert [decision.action for decision in alone] == ["take", "leave", "leave"]
    assert [(reason.column, reason.value) for reason in alone[0].reasons] == [("image", "an image")]
    written = [{"image": base64.b64encode(row["image"]).decode()} for row in rows]
    for batch in (model.decide(rows), model.decide(written), list(model.decide(pa.table({"image": [row["image"] for row in rows]})))):
        assert [(d.predictive, d.promise, d.reasons) for d in batch] == [(d.predictive, d.promise, d.reasons) for d in alone]
    assert (alone[0].notes, model.decide(written[0]).reasons) == ((), alone[0].reasons)
    assert model.decide([{"image": b"GIF"}, rows[0]])[0].notes == (
        "image: images that are no PNG, JPEG, GIF, BMP, TIFF, WebP or PPM images; treated as missing",
    )


def test_pixels_and_files_of_one_image_get_the_same_bits(space: Path, runs: dict[str, Run]) -> None:
    assert runs["digits.npz"].bundle is not None
    model = load(runs["digits.npz"].bundle)
    pixels = np.asarray(PIL.Image.open(min((space / "digits" / "0").glob("0*.png")))).tobytes()
    assert model.decide({"image": pixels}).predictive == model.decide({"image": a_file(space)}).predictive


def test_what_was_found(runs: dict[str, Run]) -> None:
    found = {(f.kind, f.column): (f.count, f.action) for f in runs["digits"].findings}
    assert found["not_image", ""] == (1, "excluded")
    assert found["image", "image"] == (1, "treated as missing")
    assert found["place", "path"] == (N + 1, "excluded")
    assert not [f for f in runs["digits"].findings if f.severity == "leak"]
    assert runs["digits.npz"].evaluation is not None
    assert not [s for s in runs["digits.npz"].evaluation.slices if s.column == "image"]


def test_a_folder_and_a_table_are_decided(space: Path, runs: dict[str, Run]) -> None:
    told = pipeline.decide_file(str(runs["digits.npz"].bundle), space / "digits", space / "out.csv")
    assert (told.n, told.actions) == (
        N + 1,
        pipeline.decide_file("digits", space / "digits", space / "o.csv", workspace=space / "npz").actions,
    )
    assert any(
        note.startswith("image: images that end too early") or "broken" in note or "cannot be decoded" in note for note in told.notes
    )
    pq.write_table(pa.table({"image": [a_file(space)]}), space / "t.parquet")
    assert pipeline.decide_file(str(runs["digits"].bundle), space / "t.parquet", space / "out.csv").actions == {"take": 1}


def test_an_image_alone_is_decided_and_a_folder_says_which(space: Path, runs: dict[str, Run]) -> None:
    model = str(runs["digits.npz"].bundle)
    file = min((space / "digits" / "0").glob("0*.png"))
    told = pipeline.decide_file(model, file, space / "one.csv")
    assert (told.n, told.actions, told.notes) == (1, {"take": 1}, ())
    written = pl.read_csv(space / "one.csv")
    assert (written["path"].to_list(), written.columns[:4]) == ([file.name], ["row", "id", "path", "action"])
    folder = space / "mixed"
    folder.mkdir()
    (folder / "a.png").write_bytes(file.read_bytes())
    (folder / "b.png").write_bytes(b"")
    (folder / "c.txt").write_text("no image")
    told = pipeline.decide_file(model, folder, space / "mixed.parquet")
    assert pq.read_table(space / "mixed.parquet")["path"].to_pylist() == ["a.png", "b.png"]
    assert told.notes == (
        "1 file is no image by name or by content, such as 'c.txt'.",
        "image: images that have no bytes; treated as missing",
    )


def test_the_report_shows_the_costliest_mistakes(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert run.report is not None
        page = run.report.read_text(encoding="utf-8")
        section = page[page.index('<section id="mistakes">') :].partition("</section>")[0]
        shown = section.count("<img") + section.count("no image that could be read")
        assert "held-out rows" in section
        assert shown == section.count("<li>")
        assert shown or "On none of the" in section
        assert ("<code>0/torn.png</code>" in section) == ("no image that could be read" in section)


def test_a_case_gives_the_classes_of_a_folder_their_name(space: Path) -> None:
    prepared = prepare_rows(case(space, "digits", ("outcome: label", "outcome: digit")))
    assert prepared.table.column_names == ["image", "path", "digit"]
    assert prepared.outcome.task.classes == ("0", "1", "2")
    with pytest.raises(CaseError, match=r"data\.outcome: got 'digit'; expected a column of the data: file, label"):
        prepare_rows(case(space, "digits.csv", ("outcome: label", "outcome: digit, path: file")))


@pytest.fixture(scope="module")
def parted(space: Path) -> Path:
    """The digits 0 to 2 as MNIST comes: arrays to learn from and to test on; five of the test stand among the others too."""
    with np.load(space / "digits.npz") as arrays:
        x, y = np.rint(arrays["images"] * (255 / 16)).astype(np.uint8), arrays["labels"]
    train = np.r_[0:160, 160:165]
    np.savez(space / "parted.npz", x_train=x[train], y_train=y[train], x_test=x[160:], y_test=y[160:])
    return space / "parted.npz"


def test_declared_test_rows_are_the_test(space: Path, parted: Path) -> None:
    spec = case(space, "digits", ("outcome: label", "outcome: digit, holdout: part"), ("families: [linear, lightgbm]", "families: linear"))
    run = pipeline.run(spec, data=parted, workspace=space / "parted")
    assert run.split["method"] == "declared"
    assert (run.split["train"], run.split["test"]) == (160, N - 160)
    assert "5 rows left out, since they look like a row of the test" in run.split["detail"]
    found = {f.kind: f for f in run.findings}
    assert found["source"].detail == "The rows were read from 'parted.npz', in place of the case's own source."
    assert (found["holdout"].column, found["holdout"].action) == ("part", "excluded")
    assert not [f for f in run.findings if f.severity == "leak"]
    assert run.bundle is not None
    assert run.report is not None
    assert load(run.bundle).transform.inputs == ("image",)
    page = run.report.read_text(encoding="utf-8")
    assert "As declared: a column of the data says which rows are held out." in page
    assert "tested on the rows whose part is test" in page
    again = prepare_rows(case(space, "parted.npz", ("outcome: label", "outcome: digit, holdout: part, sha256: " + "0" * 64)), parted)
    assert again.splits.hash == run.split["hash"], "the hash is of data.source, and another file stands in its place"


def test_a_test_that_is_not_declared_is_pointed_at(space: Path, parted: Path) -> None:
    warned = [f for f in prepare_rows(case(space, "parted.npz")).findings if f.severity == "warning"]
    assert [(f.kind, f.column, f.action) for f in warned if f.kind != "duplicate"] == [("holdout", "part", "kept")]
    assert "write data.holdout: part; without it they are learnt from like the rest" in warned[0].detail
    declared = prepare_rows(case(space, "parted.npz", ("outcome: label", "outcome: label, holdout: part")))
    assert not [f for f in declared.findings if f.severity == "warning"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("holdout: parts", "data.holdout: got 'parts'; expected a column of the data: image, path, label, part; did you mean 'part'?"),
        ("holdout: label", "data; expected a holdout column other than the outcome 'label'"),
        ("holdout: part, time: path", "data; expected time or holdout, not both: each says which rows are held out"),
        ("holdout: image", "data.holdout: got 'image'; expected a column of values, not of images"),
        ("sha256: abc", "data.sha256: got 'abc'; expected 64 hexadecimal digits, as `sha256sum FILE` prints them"),
        ("sha256: " + "A" * 64, f"of parted.npz'; expected {'a' * 64}"),
    ],
)
def test_what_a_case_may_not_say_of_its_rows(space: Path, parted: Path, data: str, message: str) -> None:
    with pytest.raises((CaseError, DataError)) as caught:
        prepare_rows(case(space, "parted.npz", ("outcome: label", f"outcome: label, {data}")))
    assert message in str(caught.value)


def test_a_table_of_paths_runs_and_decides(space: Path) -> None:
    spec = case(space, "digits.csv", ("outcome: label", "outcome: label, path: file"), ("[linear, lightgbm]", "linear"))
    run = pipeline.run(spec, workspace=space / "csv")
    assert run.bundle is not None
    told = pipeline.decide_file(str(run.bundle), space / "digits.csv", space / "out.csv")
    assert (told.n, told.actions["take"]) == (N, pytest.approx(80, abs=5))
    assert load(run.bundle).transform.inputs == ("image",)


def test_features_are_one_image_only_where_nothing_stands_beside_it(space: Path) -> None:
    alone = prepare_rows(case(space, "digits.npz"))
    assert alone.transform(alone.known).shape == (8, 8, 1)
    table = alone.table.append_column("weight", pa.array(np.random.default_rng(0).normal(size=alone.table.num_rows)))
    beside = prepare_rows(case(space, "digits.npz"), table.drop_columns(["path"]))
    assert beside.transform(beside.known).shape is None


@pytest.mark.parametrize(
    ("image", "shape"),
    [("image: {size: [4, 6], channels: 3}", (4, 6, 3)), ("image: {size: [4, 6]}", (4, 6, 1)), ("known_later: []", (8, 8, 1))],
)
def test_the_case_says_the_shape(space: Path, image: str, shape: tuple[int, int, int]) -> None:
    prepared = prepare_rows(case(space, "digits.npz", ("image: {size: [8, 8], channels: 1}", image)))
    transform = prepared.transform(prepared.known)
    assert transform.shape == shape
    raw: Any = np.load(space / "digits.npz")["images"][0]
    stored = np.rint(raw * (255 / 16)).astype(np.uint8).tobytes()
    kept = prepared.table["image"][0].as_py()
    assert transform.read({"image": [stored]})[0]["image"].tolist() == [kept] == transform.read({"image": [kept]})[0]["image"].tolist()


def test_equal_images_never_stand_on_both_sides(space: Path) -> None:
    with np.load(space / "digits.npz") as arrays:
        twice = {name: np.concatenate([arrays[name], arrays[name][:60]]) for name in ("images", "labels")}
    np.savez(space / "twice.npz", **twice)
    prepared = prepare_rows(case(space, "twice.npz"))
    assert prepared.table.num_rows == N
    assert [(f.count, f.action) for f in prepared.findings if f.kind == "duplicate"] == [(60, "dropped")]
    weight = pa.array(np.arange(N + 60, dtype=np.float64) ** 0.5)  # now no two rows are equal, and yet there are equal images
    pixels = [np.rint(image * (255 / 16)).astype(np.uint8).tobytes() for image in twice["images"]]
    ppm = [b"P5 8 8 255\n" + p for p in pixels]
    prepared = prepare_rows(case(space, "twice.npz"), pa.table({"image": ppm, "weight": weight, "label": twice["labels"]}))
    assert prepared.table.num_rows == N + 60
    for fold in prepared.splits.folds:
        sides = [set(prepared.table["image"].take(pa.array(rows)).to_pylist()) for rows in (fold.train, fold.test)]
        assert not sides[0] & sides[1]


def test_golden_rows_are_few_where_images_are_large(space: Path) -> None:
    spec = case(space, "digits.npz", ("size: [8, 8]", "size: [64, 64]"), ("[linear, lightgbm]", "constant"), ("budget: 2s", "budget: 1s"))
    run = pipeline.run(spec, workspace=space / "large")
    assert run.bundle is not None
    assert (run.bundle / "golden.json").stat().st_size < 1_500_000
    assert mg.load(run.bundle).decide({"image": a_file(space)}).action in ("take", "leave")


def test_a_bundle_of_images_is_served_without_pillow(runs: dict[str, Run]) -> None:
    script = """
import base64, sys
sys.modules["PIL"] = None
from makegood.model import load
model = load(sys.argv[1])
print(model.decide({"image": bytes(64)}).action, model.decide({"image": base64.b64encode(bytes(64)).decode()}).action)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script, str(runs["digits"].bundle)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[1].split())
    assert loaded >= {"makegood", "numpy", "onnxruntime"}
    assert not loaded & {"pyarrow", "duckdb", "sklearn", "lightgbm", "torch"}


def test_images_that_nobody_can_read(space: Path) -> None:
    table = pa.table({"image": [b"no image"] * 60, "code": [f"c{i}" for i in range(60)], "label": [str(i % 3) for i in range(60)]})
    with pytest.raises(DataError, match=r"^data: got 'no column to learn from'"):
        prepare_rows(case(space, "x"), table)


def test_money_is_not_made_of_images(space: Path) -> None:
    with pytest.raises(CaseError, match="image"):
        prepare_rows(case(space, "digits.npz", ("leave: {payoff: 0}", "leave: {payoff: 0.1 * image}")))


@pytest.mark.parametrize(("source", "size"), [("digits", "[32, 32], channels: 3"), ("digits.npz", "[8, 8], channels: 1")])
def test_a_first_case_file_says_how_to_choose_the_pixels(space: Path, source: str, size: str) -> None:
    path = draft(str(space / source), Answers("label"), space / f"{source[-3:]}.yaml", ask=None, say=lambda text: None)
    assert f"  # image: {{size: {size}}}    # the pixels" in path.read_text()
    assert Case.load(path).case == "digits"


def test_frames_of_other_libraries_hold_images_too(space: Path, runs: dict[str, Run]) -> None:
    assert runs["digits"].bundle is not None
    model = load(runs["digits"].bundle)
    cells = [a_file(space), None, a_file(space, 1)]
    wanted = model.decide([{"image": cell} for cell in cells])
    for frame in (pl.DataFrame({"image": cells}), pd.DataFrame({"image": cells}), pa.table({"image": pa.array(cells, pa.large_binary())})):
        assert [d.predictive for d in model.decide(frame)] == [d.predictive for d in wanted]
    files = sorted((space / "digits").rglob("0*.png")) + sorted((space / "digits").rglob("1*.png"))
    columns = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    first, second = (prepare_rows(case(space, "x"), frame).table for frame in (pl.DataFrame(columns), pd.DataFrame(columns)))
    assert first.equals(second)
