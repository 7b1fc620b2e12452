"""The folder of a bundle: whatever is damaged, added, missing or hostile is refused, with where, what and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

from makegood import bundle
from makegood.errors import BundleError

FILES = {name: f"content of {name}\n".encode() * 3 for name in bundle.LIMITS if name != bundle.MANIFEST}


def write(target: Path, **other: bytes) -> None:
    files = FILES | {name.replace("__", "."): content for name, content in other.items()}
    bundle.write(target, files, makegood="0.1.0", case="loans", verdict="deploy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "b")
    return tmp_path / "b"


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        bundle.read(folder)
    assert all(p.where and p.expected for p in caught.value.problems)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- round trip


def test_what_was_written_is_read(folder: Path) -> None:
    contents = bundle.read(folder)
    assert contents.files == FILES
    assert contents.hash == bundle.sha256((folder / bundle.MANIFEST).read_bytes())
    assert contents.manifest.case == "loans"
    assert {p.name for p in folder.parent.iterdir()} == {"b"}


def test_a_link_to_the_whole_folder_is_no_danger(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert bundle.read(tmp_path / "current").files == FILES


# ---------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", bundle.LIMITS)
@pytest.mark.parametrize("position", [0, -1, 0.5])
def test_one_flipped_bit_is_refused(folder: Path, name: str, position: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(position * len(data)) if position == 0.5 else int(position)] ^= 4
    (folder / name).write_bytes(data)
    assert str(folder / name) in refused(folder)


@pytest.mark.parametrize("name", bundle.LIMITS)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_file_is_refused(folder: Path, name: str, keep: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(keep * len(data))])
    assert str(folder / name) in refused(folder)


@pytest.mark.parametrize("name", bundle.LIMITS)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert "no such file" in refused(folder)


def test_every_finding_is_told_at_once(folder: Path) -> None:
    for name in ("case.json", "card.md"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(BundleError) as caught:
        bundle.read(folder)
    problem, other = caught.value.problems
    assert problem.where.endswith("case.json")
    assert other.where.endswith("card.md")
    assert other.got == "bytes 1"
    assert "as the manifest says" in other.expected


def test_the_same_size_with_other_bytes_is_told_by_its_hash(folder: Path) -> None:
    (folder / "card.md").write_bytes(FILES["card.md"][::-1])
    assert "SHA-256" in refused(folder)


@pytest.mark.parametrize("name", ["model.pkl", "weights.bin", "manifest.json.bak", "transform.pkl", "transform.npz", "__init__.py"])
def test_an_extra_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(os.getcwd))
    assert "belongs to no bundle" in refused(folder)


def test_an_extra_folder_is_refused(folder: Path) -> None:
    (folder / "weights").mkdir()
    assert "belongs to no bundle" in refused(folder)


def test_a_folder_instead_of_a_file_is_refused(folder: Path) -> None:
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()
    assert "no regular file" in refused(folder)


def test_a_pipe_instead_of_a_file_is_refused_without_waiting(folder: Path) -> None:
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")
    assert "no regular file" in refused(folder)


@pytest.mark.parametrize("name", bundle.LIMITS)
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert "a symbolic link" in refused(folder)


def test_an_oversized_file_is_refused_unread(folder: Path) -> None:
    with (folder / "case.json").open("r+b") as file:
        file.truncate(bundle.LIMITS["case.json"] + 1)  # sparse: costs no disk
    assert "at most 1048576" in refused(folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "give the folder that holds manifest.json" in refused(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file(folder: Path) -> None:
    (folder / "card.md").chmod(0)
    assert "Permission denied" in refused(folder)


# -------------------------------------------------------------------------------------------------------------- manifest


def edited(folder: Path, edit: Callable[[dict], object]) -> str:
    raw = json.loads((folder / bundle.MANIFEST).read_bytes())
    edit(raw)
    sealed = raw | {"seal": bundle.sha256(bundle.dump_json(raw | {"seal": ""}))}
    (folder / bundle.MANIFEST).write_bytes(bundle.dump_json(sealed))
    return refused(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format=2), "got 'format 2'; expected format 1"),
        (lambda m: m.update(format="1"), "expected format 1"),
        (lambda m: m.pop("format"), "got 'format None'"),
        (lambda m: m.update(loader="os.system"), "unknown field `loader`"),
        (lambda m: m.pop("case"), "missing required field `case`"),
        (lambda m: m.update(case=3), "Expected `str`, got `int`"),
        (lambda m: m["files"].update({"../../etc/passwd": m["files"]["card.md"]}), "files: ../../etc/passwd"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"]["card.md"]}), "files: /etc/passwd"),
        (lambda m: m["files"].pop("card.md"), "files: card.md"),
        (lambda m: m["files"]["card.md"].update(bytes=-1), "bytes 57"),
        (lambda m: m["files"]["card.md"].update(sha256="0" * 64), "SHA-256"),
    ],
)
def test_a_changed_manifest_is_refused(folder: Path, edit: Callable[[dict], object], message: str) -> None:
    assert message in edited(folder, edit)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"deploy"', b'"refuse"'), (b'"loans"', b'"loanz"'), (b'"makegood": "0.1.0"', b'"makegood": "0.1.1"'), (b"{\n", b"{\n\n")],
)
def test_the_seal_covers_every_byte_of_the_manifest(folder: Path, old: bytes, new: bytes) -> None:
    data = (folder / bundle.MANIFEST).read_bytes()
    assert old in data
    (folder / bundle.MANIFEST).write_bytes(data.replace(old, new, 1))
    assert "the seal of this manifest, byte by byte" in refused(folder)


def test_a_manifest_that_is_a_list(folder: Path) -> None:
    (folder / bundle.MANIFEST).write_text("[1]")
    assert "format None" in refused(folder)


# ------------------------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (b'{"x": {"a": 1, "a": 1}}', "the key 'a' twice"),
        (b"[NaN]", "the number NaN"),
        (b"[-Infinity]", "the number -Infinity"),
        (b"[1e999]", "the number 1e999"),
        (b"[" + b"9" * 400 + b"]", "an integer of 400 digits"),
        (b"[" * 40 + b"]" * 40, "40 nested levels"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": 1', "delimiter"),
        (b"\xff\xfe{}", "codec can't decode"),
        ("{}".encode("utf-16"), "codec can't decode"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_loose_json_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=r"strict JSON|at most 32") as caught:
        bundle.parse_json(text, "case.json")
    assert message in str(caught.value)


def test_brackets_inside_text_do_not_count_as_depth() -> None:
    assert bundle.parse_json(b'["' + b"[" * 500 + rb"\"[[" + b'"]', "x") == ["[" * 500 + '"[[']


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_json_comes_back_to_the_last_bit(value: object) -> None:
    try:
        written = bundle.dump_json(value)
    except UnicodeEncodeError:  # lone surrogates are no text
        return
    assert bundle.parse_json(written, "x") == value


# ------------------------------------------------------------------------------------------------------------------ ONNX


def model(*nodes: object, initializer: tuple[TensorProto, ...] = (), domains: tuple[str, ...] = ("", "ai.onnx.ml")) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, 2])],
        list(initializer),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, 3 if d else 17) for d in domains], ir_version=9)


def tensor(**fields: object) -> TensorProto:
    out = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    for name, value in fields.items():
        setattr(out, name, value)
    return out


def outside(form: str) -> TensorProto:
    out = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    out.external_data.add(key="location", value="../../etc/passwd")
    if form == "declared":
        out.data_location = TensorProto.EXTERNAL
    return out


def branch(inner: GraphProto) -> AttributeProto:
    return helper.make_attribute("then_branch", inner)


class Boom:
    """Removes nothing, and tells if it was ever unpickled."""

    ran = False

    def __reduce__(self) -> tuple[object, ...]:
        return setattr, (Boom, "ran", True)


IDENTITY = helper.make_node("Identity", ["features"], ["raw"])
TREES = helper.make_node(
    "TreeEnsembleRegressor",
    ["features"],
    ["raw"],
    domain="ai.onnx.ml",
    nodes_values=[0.5] * 2000,
    nodes_featureids=[300] * 2000,
    nodes_modes=["LEAF"] * 2000,
)


def with_function() -> ModelProto:
    out = model(IDENTITY)
    out.functions.append(helper.make_function("", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], []))
    return out


def with_training() -> ModelProto:
    out = model(IDENTITY)
    out.training_info.add().algorithm.name = "t"
    return out


def nested(levels: int, innermost: object) -> ModelProto:
    inner = model(innermost).graph
    for _ in range(levels):
        node = helper.make_node("If", ["features"], ["raw"])
        node.attribute.append(branch(inner))
        inner = model(node).graph
    return model(*inner.node)


def sparse() -> ModelProto:
    out = model(IDENTITY)
    out.graph.sparse_initializer.add().values.CopyFrom(outside("declared"))
    return out


CONSTANT = helper.make_node("Constant", [], ["raw"])
CONSTANT.attribute.append(helper.make_attribute("value", outside("declared")))
GOOD = model(IDENTITY, TREES, initializer=(tensor(),)).SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model(IDENTITY, initializer=(outside("declared"),)).SerializeToString(), "external data"),
        (model(IDENTITY, initializer=(outside("undeclared"),)).SerializeToString(), "external data"),
        (model(IDENTITY, initializer=(tensor(data_location=TensorProto.EXTERNAL),)).SerializeToString(), "lies outside the file"),
        (model(CONSTANT).SerializeToString(), "external data"),
        (sparse().SerializeToString(), "external data"),
        (nested(3, CONSTANT).SerializeToString(), "external data"),
        (model(helper.make_node("Shell", ["features"], ["raw"], domain="evil.ops")).SerializeToString(), "domain 'evil.ops'"),
        (model(helper.make_node("FusedGemm", ["features"], ["raw"], domain="com.microsoft")).SerializeToString(), "com.microsoft"),
        (model(IDENTITY, domains=("", "evil.ops")).SerializeToString(), "domain 'evil.ops'"),
        (nested(2, helper.make_node("Shell", [], ["raw"], domain="evil.ops")).SerializeToString(), "domain 'evil.ops'"),
        (model(helper.make_node("RandomNormalLike", ["features"], ["raw"])).SerializeToString(), "the operator RandomNormalLike"),
        (model(helper.make_node("Loop", ["features"], ["raw"])).SerializeToString(), "the operator Loop"),
        (nested(20, IDENTITY).SerializeToString(), "nested too deep"),
        (with_function().SerializeToString(), "local functions"),
        (with_training().SerializeToString(), "training information"),
        (GOOD[:-5], "cut off"),
        (GOOD + b"\x3b", "wire type 3"),
        (GOOD + b"\x38\x01", "wrong wire type"),
        (GOOD + b"\xff" * 11, "more than ten bytes"),
        (GOOD + b"\x08", "out of"),
        (pickle.dumps(Boom()), ""),
    ],
)
def test_a_model_that_reaches_outside_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match="ONNX model") as caught:
        bundle.check_onnx(data, "scorer.onnx")
    assert message in str(caught.value)
    assert not Boom.ran


def test_a_reference_is_found_whatever_its_key_is_called() -> None:
    data = model(IDENTITY, initializer=(outside("declared"),)).SerializeToString()
    hidden = data.replace(b"\x0a\x08location", b"\x0a\x08LOCATION")
    with pytest.raises(BundleError, match="external data"):
        bundle.check_onnx(hidden, "scorer.onnx")


def test_standard_models_pass() -> None:
    bundle.check_onnx(GOOD, "scorer.onnx")
    bundle.check_onnx(nested(3, IDENTITY).SerializeToString(), "scorer.onnx")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(GOOD)))
def test_no_bytes_break_the_walk(noise: bytes, at: int) -> None:
    with contextlib.suppress(BundleError):
        bundle.check_onnx(GOOD[:at] + noise + GOOD[at:], "scorer.onnx")


# --------------------------------------------------------------------------------------------------------------- writing


def test_an_existing_target_is_not_touched(folder: Path) -> None:
    before = (folder / bundle.MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=r"something that exists.*a new folder.*choose another name"):
        write(folder)
    assert (folder / bundle.MANIFEST).read_bytes() == before


def test_a_dangling_link_is_an_existing_target(tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="something that exists"):
        write(tmp_path / "b")


def test_a_file_beyond_its_limit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"1048577 bytes.*at most 1048576.*train a smaller model"):
        write(tmp_path / "b", case__json=b" " * (bundle.LIMITS["case.json"] + 1))
    assert not any(tmp_path.iterdir())


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(BundleError, match=r"a folder that can be written.*free space or mend permissions"):
        write(tmp_path / "f" / "b")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from makegood import bundle
        from makegood.errors import BundleError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow further: write() fails as on a full disk
        files = {name: b"x" * 900 for name in bundle.LIMITS if name != bundle.MANIFEST} | {"scorer.onnx": b"x" * 5000}
        try:
            bundle.write(Path(sys.argv[1]), files, makegood="0", case="c", verdict="deploy")
        except BundleError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "b")], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------- optional files


def test_a_bundle_without_an_optional_file_is_read(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if name not in bundle.OPTIONAL}
    bundle.write(tmp_path / "b", files, makegood="0.1.0", case="loans", verdict="deploy")
    assert bundle.read(tmp_path / "b").files == files
    (tmp_path / "b" / "reference.json").write_bytes(b"{}")
    assert "reference.json: got 'a file that the manifest does not list'; expected only those that it lists" in refused(tmp_path / "b")
