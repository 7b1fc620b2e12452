from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makegood.data import galleries
from makegood.data.galleries import archive, arrays, folder, paths
from makegood.data.images import stack, stored_shape
from makegood.errors import DataError


def png(shade: int, size: int = 3) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("L", (size, size), shade).save(out, "PNG")
    return out.getvalue()


WHITE, GREY = png(255), png(100)
FILES = {
    "cat/1.png": WHITE,
    "cat/old/2.PNG": GREY,
    "dog/3": WHITE,  # an image by its content
    "dog/4.jpg": b"",  # an image by its name
    "dog/notes.txt": b"no image",
    ".git/5.png": WHITE,
    "dog/.hidden.png": WHITE,
    "__MACOSX/cat/1.png": b"resources",
    "Thumbs.db": b"thumbs",
}
AS_READ = {
    "image": [WHITE, GREY, WHITE, b""],
    "path": ["cat/1.png", "cat/old/2.PNG", "dog/3", "dog/4.jpg"],
    "label": ["cat", "cat", "dog", "dog"],
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: Any = "w", **odd: Any) -> Path:
    """Write a tar; each value of `odd` is the type of a member without content, of that name."""
    with tarfile.open(path, mode) as pack:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            pack.addfile(member, io.BytesIO(data))
        for name, kind in odd.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            pack.addfile(member)
    return path


class Launch:
    """Unpickling this would end the tests."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("unpickled",)


# --------------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_becomes_a_table(tmp_path: Path) -> None:
    rows = folder(write(tmp_path, FILES))
    assert rows.table.to_pydict() == AS_READ
    assert [str(f.type) for f in rows.table.schema] == ["binary", "string", "string"]
    assert (rows.in_file, rows.set_aside) == (5, 1)
    (found,) = rows.findings
    assert found.detail == "1 file is no image by name or by content, such as 'dog/notes.txt'."
    assert (found.kind, found.count, found.action, found.severity) == ("not_image", 1, "excluded", "note")


def test_parts_and_folders_around_all(tmp_path: Path) -> None:
    names = ["Train/cat/1.png", "Train/dog/2.png", "validation/cat/3.png", "test/dog/deep/4.png"]
    write(tmp_path / "pets" / "pictures", dict.fromkeys(names, WHITE))
    (tmp_path / "LICENSE").write_text("free")
    assert folder(tmp_path).table.drop(["image", "path"]).to_pydict() == {
        "label": ["cat", "dog", "dog", "cat"],
        "part": ["train", "train", "test", "valid"],
    }
    only = write(tmp_path / "only", {"train/cat/1.png": WHITE, "train/dog/1.png": WHITE})
    assert folder(only).table["part"].to_pylist() == ["train", "train"]


def test_images_without_a_class_are_named(tmp_path: Path) -> None:
    rows = folder(write(tmp_path, {"1.png": WHITE, "cat/2.png": WHITE}))
    assert rows.table["label"].to_pylist() == [None, "cat"]
    assert [f.detail for f in rows.findings] == ["1 image lies in no subfolder, which would name its class."]


def test_links_and_pipes_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"out/secret.png": GREY, "in/cat/1.png": WHITE, "in/dog/2.png": GREY})
    root = tmp_path / "in"
    (root / "cat" / "inside.png").symlink_to(root / "dog" / "2.png")
    (root / "cat" / "outside.png").symlink_to(tmp_path / "out" / "secret.png")
    (root / "cat" / "nowhere.png").symlink_to("nothing.png")
    (root / "cat" / "circle.png").symlink_to("circle.png")
    (root / "linked").symlink_to(tmp_path / "out")
    os.mkfifo(root / "dog" / "pipe.png")
    rows = folder(root)
    assert dict(zip(rows.table["path"].to_pylist(), rows.table["image"].to_pylist(), strict=True)) == {
        "cat/1.png": WHITE,
        "cat/circle.png": None,
        "cat/inside.png": GREY,
        "cat/nowhere.png": None,
        "dog/2.png": GREY,
    }
    assert {f.kind: (f.count, f.action) for f in rows.findings} == {
        "unsafe_name": (1, "excluded"),
        "link": (1, "excluded"),
        "unreadable": (2, "treated as missing"),
    }
    assert (rows.in_file, rows.set_aside) == (7, 2)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xe9.png")).write_bytes(WHITE)
    assert folder(tmp_path).table.to_pydict() == {"image": [WHITE], "path": ["cat/?.png"], "label": ["cat"]}
    assert archive(tarred(tmp_path / "t.tar", {"cat/\udce9.png": WHITE})).table["path"].to_pylist() == ["cat/?.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        folder(write(tmp_path / "empty", {"a.txt": b"text"}))
    assert str(error.value) == (
        "empty: got \"1 file is no image by name or by content, such as 'a.txt'.\"; "
        "expected images: PNG, JPEG, GIF, BMP, TIFF, WebP or PPM files"
    )
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"^bare: got 'no files'; expected images: "):
        folder(tmp_path / "bare")


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"cat/1.png": WHITE, "cat/2.png": WHITE + bytes(900), "cat/film.avi": bytes(5000)})
    monkeypatch.setattr(galleries, "MAX_FILE", 800)
    rows = folder(tmp_path)
    assert rows.table["image"].to_pylist() == [WHITE, None]
    assert [(f.kind, f.count) for f in rows.findings] == [("not_image", 1), ("large", 1)]
    monkeypatch.setattr(galleries, "MAX_TOTAL", len(WHITE) - 1)
    with pytest.raises(DataError, match=r"got 'more than 0 MiB of images'; expected at most 0 MiB of images; shrink the images, or give"):
        folder(tmp_path)


# -------------------------------------------------------------------------------------------------------------------- archives


def test_an_archive_reads_as_its_folder(tmp_path: Path) -> None:
    packs = [zipped(tmp_path / "t.zip", FILES), tarred(tmp_path / "t.tar", FILES)]
    packs += [tarred(tmp_path / "t.tar.gz", FILES, "w:gz"), tarred(tmp_path / "t.tgz", FILES, "w:gz")]
    with zipfile.ZipFile(packs[0], "a") as pack:
        pack.mkdir("empty")
    before = sorted(os.listdir(tmp_path))
    for path in packs:
        rows = archive(path)
        assert rows.table.to_pydict() == AS_READ
        assert (rows.in_file, rows.set_aside, len(rows.findings)) == (5, 1, 1)
    assert sorted(os.listdir(tmp_path)) == before


HOSTILE = ["/etc/1.png", "../1.png", "a/../../1.png", "..\\1.png", "C:\\1.png", "C:1.png", "\\\\server\\1.png"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_names_that_lead_out_are_left_out(kind: str, tmp_path: Path) -> None:
    files = dict.fromkeys(HOSTILE, WHITE) | {"cat/1.png": WHITE, "cat/2..png": WHITE}
    path = tmp_path / f"t.{kind}"
    rows = archive(zipped(path, files) if kind == "zip" else tarred(path, files, "w:gz" if kind == "tgz" else "w"))
    assert rows.table["path"].to_pylist() == ["cat/1.png", "cat/2..png"]
    (found,) = rows.findings
    assert (found.kind, found.count, found.severity) == ("unsafe_name", len(HOSTILE), "warning")
    assert found.detail == "7 files lead out of their folder by name or by link, such as '/etc/1.png'."


def test_links_and_devices_of_a_tar_are_left_out(tmp_path: Path) -> None:
    odd = {
        "link.png": tarfile.SYMTYPE,
        "hard.png": tarfile.LNKTYPE,
        "null.png": tarfile.CHRTYPE,
        "pipe.png": tarfile.FIFOTYPE,
        "d": tarfile.DIRTYPE,
    }
    rows = archive(tarred(tmp_path / "t.tar", {"cat/1.png": WHITE}, **odd))
    assert rows.table.num_rows == 1
    assert [(f.kind, f.count) for f in rows.findings] == [("link", 4)]


def test_links_and_encrypted_members_of_a_zip_are_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.zip", {"cat/1.png": WHITE, "locked.png": GREY})
    with zipfile.ZipFile(path, "a") as pack:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        pack.writestr(link, "/etc/passwd")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2", 0, data.rindex(b"locked.png")) + 8] |= 1
    path.write_bytes(data)
    rows = archive(path)
    assert rows.table["path"].to_pylist() == ["cat/1.png"]
    assert [(f.kind, f.count) for f in rows.findings] == [("link", 1), ("encrypted", 1)]


def test_a_damaged_member_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("cat/1.png", WHITE)
        pack.writestr("cat/2.png", GREY)
    path.write_bytes(path.read_bytes().replace(GREY, GREY[:-1] + b"!"))
    rows = archive(path)
    assert rows.table["image"].to_pylist() == [WHITE, None]
    assert [(f.kind, f.detail) for f in rows.findings] == [("unreadable", "1 file cannot be read, such as 'cat/2.png'.")]


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    blank = WHITE + bytes(3 << 20)
    rows = archive(zipped(tmp_path / "t.zip", {"cat/1.png": WHITE, "bomb.png": blank}))
    assert rows.table["path"].to_pylist() == ["cat/1.png"]
    assert [f.detail for f in rows.findings] == ["1 file would unpack to more than 200 times its size, such as 'bomb.png'."]
    with pytest.raises(DataError) as error:
        archive(tarred(tmp_path / "t.tgz", {"cat/1.png": WHITE, "bomb": blank}, "w:gz"))
    assert str(error.value) == (
        "t.tgz: got 'a damaged archive (it ends too early, or would unpack to far more than its size)'; "
        "expected a whole .zip, .tar or .tar.gz file; copy or download it again"
    )


def test_a_header_of_a_tar_that_claims_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "t.tgz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)))
    with pytest.raises(DataError, match=r"^t.tgz: got 'a damaged archive \(a header that is too large\)'; expected a whole"):
        archive(tmp_path / "t.tgz")


def test_a_sparse_member_is_not_filled_up(tmp_path: Path) -> None:
    member = tarfile.TarInfo("hole.png")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # eight GiB of noughts
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    (tmp_path / "t.tar").write_bytes(bytes(header[:512]) + tarred(tmp_path / "u.tar", {"cat/1.png": WHITE}).read_bytes())
    rows = archive(tmp_path / "t.tar")
    assert rows.table["path"].to_pylist() == ["cat/1.png"]
    assert [(f.kind, f.count) for f in rows.findings] == [("bomb", 1)]


@pytest.mark.parametrize("name", ["t.zip", "t.tar", "t.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"no archive", pickle.dumps(Launch()), gzip.compress(b"no tar" * 200, mtime=0)])
def test_what_is_no_archive_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"^{name}: got '?\"?a damaged archive \(.*expected a whole .zip, .tar or .tar.gz file; copy or "):
        archive(tmp_path / name)


def test_a_tar_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "t.tar", {"cat/1.png": WHITE, "cat/2.png": WHITE + bytes(5000)}).read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:3000])
    with pytest.raises(DataError, match="it ends too early"):
        archive(tmp_path / "t.tar")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "tar", "tgz", "npz"]),
    flips=st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damage_is_refused_or_named(kind: str, flips: list[tuple[int, int]], tmp_path: Path) -> None:
    path, files = tmp_path / f"t.{kind}", {"cat/1.png": WHITE, "dog/2.png": GREY}
    if kind == "npz":
        np.savez(path, images=X, labels=Y)
    else:
        zipped(path, files) if kind == "zip" else tarred(path, files, "w:gz" if kind == "tgz" else "w")
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        rows = (arrays if kind == "npz" else archive)(path)
    except DataError:
        return
    assert rows.in_file == rows.table.num_rows + rows.set_aside


# ---------------------------------------------------------------------------------------------------------------------- arrays


def saved(path: Path, **held: Any) -> Path:
    np.savez_compressed(path, **held)
    return path


def test_arrays_of_train_and_test(tmp_path: Path, rng: np.random.Generator) -> None:
    train, test = rng.integers(0, 256, (5, 4, 3), np.uint8), rng.integers(0, 256, (2, 4, 3), np.uint8)
    path = saved(tmp_path / "t.npz", x_train=train, y_train=np.arange(5), x_test=test, y_test=np.array([[1], [2]]), mean=train.mean())
    rows = arrays(path)
    assert rows.table.column_names == ["image", "path", "label", "part"]
    assert rows.table["label"].to_pylist() == [0, 1, 2, 3, 4, 1, 2]
    assert rows.table["part"].to_pylist() == ["train"] * 5 + ["test"] * 2
    assert rows.table["path"].to_pylist()[4:6] == ["x_train[4]", "x_test[0]"]
    assert (rows.in_file, rows.set_aside) == (7, 0)
    assert [f.detail for f in rows.findings] == ["1 array is left over, such as 'mean'."]
    shape = stored_shape(rows.table.schema.field("image"))
    assert shape == (4, 3, 1)
    pixels, good, _ = stack(rows.table["image"], shape, shape)
    assert good.all()
    np.testing.assert_array_equal(pixels[..., 0], np.concatenate([train, test]))


def test_images_and_labels_with_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = np.asfortranarray(rng.integers(0, 256, (4, 3, 2, 3), np.uint8))
    for labels in (np.array(["a", "b", "a", "b"]), np.array([b"a", b"b", b"a", b"b"])):
        table = arrays(saved(tmp_path / "t.npz", images=pixels, labels=labels)).table
        assert table.column_names == ["image", "path", "label"]
        assert table["label"].to_pylist() == ["a", "b", "a", "b"]
        assert table.schema.field("image").metadata == {b"shape": b"3,2,3"}
        assert table["image"][3].as_py() == pixels[3].tobytes()


def test_labels_of_two_kinds_become_text(tmp_path: Path) -> None:
    x = np.zeros((2, 2, 2), np.uint8)
    table = arrays(saved(tmp_path / "t.npz", x_train=x, y_train=np.array([1, 2]), x_test=x, y_test=np.array(["1", "3"]))).table
    assert table["label"].to_pylist() == ["1", "2", "1", "3"]


@pytest.mark.parametrize(
    ("values", "pixels", "top"),
    [
        ([0.0, 0.5, 1.0, 0.1], [0, 128, 255, 26], 1),
        ([0.0, 8.0, 16.0, 1.0], [0, 128, 255, 16], 16),
        ([0.0, 17.4, 255.0, 1.0], [0, 17, 255, 1], 255),
        ([False, True, True, False], [0, 255, 255, 0], 1),
        ([0, 16, 3, 1], [0, 255, 48, 16], 16),
    ],
)
def test_other_numbers_are_scaled_and_told(values: list[float], pixels: list[int], top: int, tmp_path: Path) -> None:
    rows = arrays(saved(tmp_path / "t.npz", images=np.array(values).reshape(1, 2, 2), labels=np.array([1])))
    assert list(rows.table["image"][0].as_py()) == pixels
    detail = f"Values from 0 to {max(values):g} were taken as shades from 0 to {top}, and scaled to 0 to 255."
    assert [(f.kind, f.count, f.detail) for f in rows.findings] == [("scaled", 1, detail)]


X, Y = np.zeros((2, 3, 3), np.uint8), np.array([0, 1])
LAUNCH = np.array([Launch(), Launch()], dtype=object)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"a": X, "b": Y}, "t.npz: got 'the arrays a, b'; expected x_train and y_train, or images and labels"),
        (
            {"images": LAUNCH, "labels": Y},
            "t.npz, images: got 'Python objects, which would have to be unpickled'; expected plain arrays; write them as numbers or as fixed-length text",
        ),
        (
            {"images": X, "labels": LAUNCH},
            "t.npz, labels: got 'Python objects, which would have to be unpickled'; expected plain arrays; write them as numbers or as fixed-length text",
        ),
        (
            {"images": X, "labels": np.zeros((2, 10))},
            "t.npz, labels: got 'float64 (2, 10)'; expected one number or text for each of the 2 images",
        ),
        ({"images": X, "labels": Y[:1]}, "t.npz, labels: got 'int64 (1,)'; expected one number or text for each of the 2 images"),
        (
            {"images": np.zeros((2, 3, 8, 8)), "labels": Y},
            "t.npz: got 'images (2, 3, 8, 8)'; expected (n, height, width) or (n, height, width, 1 or 3 channels), the same in train and test; put the channels last",
        ),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y},
            "t.npz: got 'x_train (2, 3, 3), x_test (2, 2, 3)'; expected (n, height, width) or (n, height, width, 1 or 3 channels), the same in train and test; put the channels last",
        ),
        (
            {"images": np.zeros((2, 0, 4)), "labels": Y},
            "t.npz: got 'images (2, 0, 4)'; expected (n, height, width) or (n, height, width, 1 or 3 channels), the same in train and test; put the channels last",
        ),
        ({"images": X - 1.0, "labels": Y}, "t.npz: got 'values from -1 to 0'; expected numbers from 0 to 1, 16 or 255; scale the images"),
        (
            {"images": X + 256.0, "labels": Y},
            "t.npz: got 'values from 0 to 256'; expected numbers from 0 to 1, 16 or 255; scale the images",
        ),
        (
            {"images": X * np.nan, "labels": Y},
            "t.npz: got 'values from nan to nan'; expected numbers from 0 to 1, 16 or 255; scale the images",
        ),
        ({"images": X * 1j, "labels": Y}, "t.npz: got 'complex128 values'; expected numbers from 0 to 1, 16 or 255"),
        (
            {"images": np.zeros((9, 512, 512), np.uint8), "labels": np.arange(9)},
            "t.npz, images: got 'an array that unpacks to more than 200 times its size'; expected an array of images",
        ),
    ],
)
def test_arrays_that_are_no_images_are_refused(held: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        arrays(saved(tmp_path / "t.npz", **held))
    assert str(error.value) == message


def header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Launch()),
        header("(100000000, 2, 2)"),
        header("__import__('sys').exit()"),
        header("(2, 3, 3)", "no kind"),
        header("(2, 3, 3)") + bytes(5),
        b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 30),
        b"",
    ],
)
def test_a_hostile_array_is_refused_unread(content: bytes, tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.npz", {"images.npy": content, "labels.npy": header("(2,)") + b"12"})
    with pytest.raises(DataError, match=r"^t.npz: got ['\"]a damaged file \(.*expected a whole .npz file; write or copy it again$"):
        arrays(path)


def test_an_array_larger_than_memory_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.npz", {"images.npy": header("(1000000000000, 2, 2)"), "labels.npy": header("(2,)") + b"12"})
    with pytest.raises(DataError, match=r"^t.npz, images: got '3,814,697 MiB'; expected at most 2,048 MiB$"):
        arrays(path)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Launch())])
def test_what_is_no_npz_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"^t.npz: got 'a damaged file \(File is not a zip file\)'; expected a whole .npz file"):
        arrays(tmp_path / "t.npz")


@pytest.mark.slow
def test_mnist(shared: Any) -> None:
    path = shared("general/mnist.npz")
    table = arrays(path).table
    assert table.num_rows == 70_000
    assert table["part"].to_pylist().count("test") == 10_000
    with np.load(path) as held:
        assert table["image"][60_001].as_py() == held["x_test"][1].tobytes()


# ------------------------------------------------------------------------------------------------------------ columns of paths


def test_a_column_of_paths(tmp_path: Path) -> None:
    write(tmp_path, {"case/photos/1.png": WHITE, "case/2.dat": GREY, "secret.png": GREY, "case/text.txt": b"text"})
    case = tmp_path / "case"
    (case / "out.png").symlink_to(tmp_path / "secret.png")
    names = ["photos/1.png", "photos\\1.png", "./2.dat", "text.txt", None, "", "none.png", "photos", "x" * 5000]
    hostile = ["../secret.png", "photos/../2.dat", str(tmp_path / "secret.png"), "C:\\2.dat", "out.png", "a\0b"]
    table, findings = paths(pa.table({"photo": names + hostile, "y": range(15)}), "photo", case)
    assert table.column_names == ["photo", "y", "image"]
    assert table["photo"].to_pylist() == names + hostile
    assert table["image"].to_pylist() == [WHITE, WHITE, GREY, b"text"] + [None] * 11
    assert [(f.kind, f.column, f.count, f.action, f.severity) for f in findings] == [
        ("unsafe_name", "photo", 6, "treated as missing", "warning"),
        ("link", "photo", 1, "treated as missing", "warning"),
        ("unreadable", "photo", 2, "treated as missing", "warning"),
    ]
    assert findings[0].detail == "6 files lead out of their folder by name or by link, such as '../secret.png'."


def test_a_column_of_paths_called_image(tmp_path: Path) -> None:
    write(tmp_path, {"1.png": WHITE})
    table, findings = paths(pa.table({"image": ["1.png"], "y": [1]}), "image", tmp_path)
    assert table.to_pydict() == {"path": ["1.png"], "y": [1], "image": [WHITE]}
    assert findings == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"photo": ["1"], "image": [1]},
            "photo: got \"a table with a column 'image' beside it\"; expected no other column 'image'; rename that column",
        ),
        (
            {"image": ["1"], "path": [1]},
            "image: got \"a table with a column 'path' beside it\"; expected no other column 'path'; rename that column",
        ),
        ({"photo": [1]}, "photo: got 'int64 values'; expected a column of paths; write each file's name"),
    ],
)
def test_a_column_that_cannot_be_paths_is_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        paths(pa.table(columns), next(iter(columns)), tmp_path)
    assert str(error.value) == message


# -------------------------------------------------------------------------------------------------------------- what they are


def test_classes_take_the_name_that_the_case_gives_them(tmp_path: Path) -> None:
    table = folder(write(tmp_path, FILES)).table
    assert galleries.named(table, "animal").column_names == ["image", "path", "animal"]
    assert galleries.named(table, "animal").schema.field("path").metadata == galleries.PLACE
    for outcome in ("label", "path"):
        assert galleries.named(table, outcome) is table
    plain = pa.table({"image": [b"x"], "label": ["cat"]})
    assert galleries.named(plain, "animal") is plain


def test_what_stands_beside_images_is_known(tmp_path: Path) -> None:
    table = folder(write(tmp_path, {"train/cat/1.png": WHITE, "test/dog/2.png": GREY})).table
    assert galleries.roles(table) == {"path", "label", "part"}
    assert galleries.place_of(table) == "path"
    made, _ = paths(pa.table({"file": ["train/cat/1.png"], "y": [1]}), "file", tmp_path)
    assert (galleries.place_of(made), galleries.roles(made)) == ("file", {"file"})
    assert galleries.place_of(pa.table({"path": ["a"]})) is None


@pytest.mark.parametrize("data", [WHITE, b"", b"no image"])
def test_one_image_is_a_table_of_one_row(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "1.png").write_bytes(data)
    rows = galleries.one(tmp_path / "1.png")
    assert rows.table.to_pydict() == {"image": [data], "path": ["1.png"], "label": [None]}
