"""Models that a case names: what a function of the user's returns, or a file that holds a saved model.

A case with `train.model: module:function` runs that module, as a script would: it is as much code as it is configuration.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from makegood import families
from makegood.errors import CaseError, MakegoodError, Problem, nearest
from makegood.families.seeds import seeded

WHERE = "train.model"
_FUNCTION = re.compile(r"(?!\d)(\w+(?:\.\w+)*):((?!\d)\w+)")

_brought: set[str] = set()
"""Modules that a case brought in: another case, or the same one after an edit, may mean other code by these names."""


def named(models: Sequence[str], *, folder: Path, seed: int) -> tuple[families.Candidate, ...]:
    """Return the candidates that a case names, each `module:function` or a saved model's path, relative to the case's folder.

    A function is called without arguments, its randomness seeded, and returns what `wrap` takes, or a `Candidate`. Raises `CaseError`,
    `Refused` or `MissingExtra`, naming the field.
    """
    found = [_candidate(text, folder.resolve(), seed) for text in models]
    names = [candidate.name for candidate in found]
    for text, name in zip(models, names, strict=True):
        if name in families.TABLE or names.count(name) > 1:
            mend = "name it: return makegood.wrap(model, name=…)"
            raise CaseError(Problem(WHERE, text, f"a model with a name of its own, other than {name!r}", mend))
    return tuple(found)


def _candidate(text: str, folder: Path, seed: int) -> families.Candidate:
    match = _FUNCTION.fullmatch(text)
    if (folder / text).exists() or not match:
        with _field(WHERE):
            return families.wrap(folder / text)
    with ExitStack() as stack:
        stack.callback(sys.path.__setitem__, slice(None), list(sys.path))
        sys.path.insert(0, str(folder))
        function = _function(_module(match[1], folder, text), match[2], text)
        with seeded(seed), _Told(f"calling {match[2]}", text, folder, KeyboardInterrupt):
            made = function()
    if isinstance(made, families.Candidate):
        return made
    if not any(hasattr(made, word) for word in ("get_params", "forward", "get_config")):  # of scikit-learn, torch, Keras
        got = "nothing" if made is None else type(made).__name__
        mend = f"end {match[2]} with `return model`"
        raise CaseError(Problem(f"{WHERE}: {text}", f"it returned {got}", "a model, or a Candidate of makegood.wrap", mend))
    with _field(f"{WHERE}: {text}"):
        return families.wrap(made, name=match[2])


@contextmanager
def _field(where: str) -> Iterator[None]:
    """Let what is refused be found in the case."""
    try:
        yield
    except MakegoodError as error:
        raise type(error)(*(replace(p, where=f"{where}: {p.where}") for p in error.problems)) from None


def _module(name: str, folder: Path, text: str) -> ModuleType:
    """Return the user's module, read anew; `folder` is first on the path."""
    root = name.partition(".")[0]
    for module in [module for module in sys.modules if module in _brought]:
        del sys.modules[module]
    _brought.clear()
    own = [path for path in (folder / root, folder / f"{root}.py") if path.exists()]
    taken = sys.modules.get(root)
    if own and taken is not None and not _within(taken, folder):
        expected = f"a module that is not called {root!r}, as one of Python's or of a package is"
        raise CaseError(Problem(WHERE, text, expected, f"rename {own[0].name}"))
    before = set(sys.modules)
    try:
        with _Told(f"importing {name}", text, folder, KeyboardInterrupt, ModuleNotFoundError):
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # something that the module itself wants
            got = f"importing {name}: no module {error.name!r}"
            raise CaseError(Problem(f"{WHERE}: {text}", got, "a module that can be imported", f"pip install {error.name}")) from None
        there = [path.stem for path in folder.glob("*.py")]
        mend = nearest(root, there) or f"put {root}.py beside the case file, in {folder}"
        raise CaseError(Problem(WHERE, text, f"a module {error.name!r}, or the path of a saved model", mend)) from None
    finally:
        _brought.update(new for new in set(sys.modules) - before if _within(sys.modules[new], folder))


def _within(module: ModuleType, folder: Path) -> bool:
    known = vars(module)  # and not getattr: some stand-ins for modules have every attribute
    places = [known.get("__file__"), *known.get("__path__", ())]
    return any(place is not None and Path(place).resolve().is_relative_to(folder) for place in places)


def _function(module: ModuleType, name: str, text: str) -> Callable[[], Any]:
    function = getattr(module, name, None)
    if not callable(function):
        there = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        mend = nearest(name, there) or f"it has {', '.join(there) or 'none'}"
        raise CaseError(Problem(WHERE, text, f"a function {name!r} in {module.__name__}", mend))
    return function  # type: ignore[no-any-return]


class _Told:
    """Turns whatever the user's code raises, but for what is `passing`, into a `CaseError` that says where."""

    def __init__(self, what: str, text: str, folder: Path, *passing: type[BaseException]) -> None:
        self.what, self.text, self.folder, self.passing = what, text, folder, passing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or isinstance(error, self.passing):
            return
        frames = [frame for frame in traceback.extract_tb(trace) if Path(frame.filename).is_relative_to(self.folder)]
        place = f"{Path(frames[-1].filename).relative_to(self.folder)}, line {frames[-1].lineno}" if frames else "it"
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{Path(error.filename).name}, line {error.lineno}"
        message = (str(error).strip().splitlines() or [""])[0][:200]
        got = f"{self.what}: {type(error).__name__}: {message}"
        raise CaseError(Problem(f"{WHERE}: {self.text}", got, "no error", f"mend {place}")) from error
