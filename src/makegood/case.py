"""The specification of a business case: one YAML file becomes one frozen `Case`.

Every scalar of the file is read as text and typed here or, where it is a value of the data, against the data: `no`, `yes`, `0`
and `0.0` stay the outcome's own values. Unknown fields are refused with the nearest known name, planned ones by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from makegood.errors import CaseError, NotBuilt, Problem, nearest

NOT_BUILT = {
    "business": "the business plan",
    "train.on": "remote execution",
    "data.query": "reading from a database",
    "data.propensity": "treatment cases",
}
"""Fields of the design that this version refuses by name, and the ability each waits for (ROADMAP.md)."""

FAMILIES = ("constant", "linear", "lightgbm")
"""What `train.families: auto` trains, the simple ones first."""

TEXT_FAMILIES = ("ngrams",)
"""Families whose rows have a text each, and that need no torch; `train.families: auto` trains them where there is a text."""

IMAGE_NETWORKS = ("cnn", "resnet", "vit")
"""Families whose rows are one image each."""

TEXT_NETWORKS = ("encoder",)
"""Families whose rows have a text each."""

NETWORKS = ("mlp", "transformer", *IMAGE_NETWORKS, *TEXT_NETWORKS)
"""Families that need torch and are trained where the case names them."""

_DURATION = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31557600.0, "ms": 0.001}


def duration_s(text: Any) -> float:
    """Return the seconds of a duration such as `60s`, `5m`, `180d`; a bare number is in seconds.

    >>> duration_s("5m"), duration_s("180d"), duration_s("0")
    (300.0, 15552000.0, 0.0)
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", str(text))
    try:
        number, unit = float(match[1]), match[2] or "s"  # type: ignore[index]
        return number * _DURATION[unit]
    except (TypeError, ValueError, KeyError):
        raise ValueError("a duration such as 60s, 5m, 12h or 180d") from None


def _words(value: Any) -> Any:
    """Let a single word stand for a list of one."""
    return (value,) if isinstance(value, str) else value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


Seconds = Annotated[float, BeforeValidator(duration_s)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Number = Annotated[float, BeforeValidator(lambda v: _finite(float(v)))]


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("64 hexadecimal digits, as `sha256sum FILE` prints them")
    return text.lower()


Sha256 = Annotated[str, AfterValidator(_sha256)]
Side = Annotated[int, Field(ge=1, le=512)]


def _channels(value: int) -> int:
    if value not in (1, 3):
        raise ValueError("1 (grey) or 3 (RGB)")
    return value


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Images(_Spec):
    """The pixels that every image is given; what is left open is as the images are stored in arrays, or 32 × 32 RGB."""

    size: tuple[Side, Side] | None = None  # height, width
    channels: Annotated[int, AfterValidator(_channels)] | None = None


class Texts(_Spec):
    """The one column of texts, and how much of a text is read: `windows` of `tokens` each, which overlap by a quarter.

    Without `tokens` a window is as long as covers 99% of the texts learnt from, 256 tokens at most.
    """

    column: Annotated[str, Field(min_length=1)]
    tokens: Annotated[int, Field(ge=8, le=512)] | None = None
    windows: Annotated[int, Field(ge=1, le=16)] = 1
    measures: bool = False  # its length, its words and its punctuation are numbers beside its tokens


def _texts(value: Any) -> Any:
    """Let the name of a column stand for all that can be said of it."""
    if isinstance(value, list | tuple):
        raise ValueError("one column of texts (several are not built yet: see ROADMAP.md)")
    return {"column": value} if isinstance(value, str) else value


class Data(_Spec):
    """Where the rows come from and what their columns mean."""

    source: str = ""  # "" when a table is passed in Python
    sha256: Sha256 | None = None  # of the source's file; a file behind an address needs it
    outcome: str
    time: str | None = None
    group: str | None = None
    holdout: str | None = None  # a column of train, valid and test: whoever made the data says which rows are held out
    outcome_delay: Seconds = 0.0
    affected_by_action: bool = False
    known_later: Words = ()
    keep: Words = ()
    protected: Words = ()
    categories: Words = ()  # number-coded columns that are labels, not amounts
    type: Literal["auto", "classes", "number"] = "auto"  # of the outcome
    scale: str | None = None  # a column whose levels have scales of their own, such as the prompts of a test
    raters: Words = ()  # columns of the marks that people gave, on any scale; known later
    path: str | None = None  # a column of paths to images
    image: Images = Images()
    text: Annotated[Texts | None, BeforeValidator(_texts)] = None  # a column of texts

    @property
    def later(self) -> Words:
        """The columns that are known only after the decision."""
        return (*self.known_later, *self.raters)

    @model_validator(mode="after")
    def _built(self) -> Self:
        if self.affected_by_action:
            raise ValueError("no (treatment cases are not built yet: see ROADMAP.md)")
        for name in ("time", "group", "holdout", "path", "scale"):
            if getattr(self, name) == self.outcome:
                raise ValueError(f"a {name} column other than the outcome {self.outcome!r}")
        if self.text is not None:
            for role in ("outcome", "time", "group", "holdout", "path", "scale", "raters", "known_later", "protected", "categories"):
                named = getattr(self, role)
                if self.text.column in (named if isinstance(named, tuple) else (named,)):
                    raise ValueError(f"a text column that is not in data.{role} too; got {self.text.column!r}")
        if self.raters and (self.scale is None or len(self.raters) < 2):
            raise ValueError("two raters or more, beside data.scale")
        if self.time is not None and self.holdout is not None:
            raise ValueError("time or holdout, not both: each says which rows are held out")
        return self


class Quantity(_Spec):
    """An amount to choose, from `min` to `max` in steps of `step`."""

    min: Number
    max: Number
    step: Number

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.step <= 0 or self.max < self.min:
            raise ValueError("min <= max and step > 0")
        if (self.max - self.min) / self.step > 1000:
            raise ValueError("at most 1001 steps between min and max")
        return self


class Action(_Spec):
    """One thing that can be done to a row, and what it pays."""

    payoff: str | dict[str, str]  # one expression, or one for each outcome
    reveals: bool = True
    quantity: Quantity | None = None


class Limit(_Spec):
    """How much of one action there may be: a share, or a count or a budget for each `per` decisions."""

    max_share: Annotated[Number, Field(ge=0, le=1)] | None = None
    max_count: Annotated[Number, Field(ge=0)] | None = None
    max_budget: Annotated[Number, Field(ge=0)] | None = None
    cost: str | None = None  # what one such decision takes out of the budget: an expression
    per: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.max_share is None and self.max_count is None and self.max_budget is None:
            raise ValueError("one of max_share, max_count, max_budget")
        if (self.max_count is not None or self.max_budget is not None) and self.per is None:
            raise ValueError("per: the number of decisions that the count or budget is for")
        if (self.max_budget is None) != (self.cost is None):
            raise ValueError("max_budget and cost together")
        return self


class Decision(_Spec):
    """What somebody decides on each row, and in which unit it pays."""

    unit: str
    actions: dict[str, Action]
    today: str | None = None  # an action, or the column that holds what was done
    limits: dict[str, Limit] = {}
    averse: Annotated[Number, Field(gt=0, le=0.5)] | None = None  # decide by what is paid with probability 1 − averse
    high_stakes: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.averse is not None and self.limits:
            raise ValueError("averse or limits, not both: many rows are guaranteed the same, and limits need rows that differ")
        if len(self.actions) < 2 and not any(a.quantity for a in self.actions.values()):
            raise ValueError("at least two actions (doing nothing is one: payoff 0), or one with a quantity")
        for name in self.limits:
            if name not in self.actions:
                raise ValueError(f"limits on declared actions only; {name!r} is none. {nearest(name, self.actions)}".rstrip())
        return self


class Train(_Spec):
    """How long training may take, and which families it may use."""

    budget: Annotated[Seconds, Field(gt=0)] = 60.0
    families: Words = ("auto",)
    model: Words = ()  # the user's own, beside the families: module:function, or the path of a saved model
    pretrained: Words = ()  # networks to start from, as transformers saves them: a folder, or owner/name at the hub
    lora: Annotated[int, Field(ge=1, le=256)] | None = None  # the rank of the factors that learn in place of a text encoder's weights
    seed: int = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.families:
            if name not in ("auto", *FAMILIES, *TEXT_FAMILIES, *NETWORKS):
                raise ValueError(f"auto, or some of {', '.join(FAMILIES + TEXT_FAMILIES + NETWORKS)}; got {name!r}")
        if self.lora is not None and not self.pretrained:
            raise ValueError("lora beside pretrained, whose attention it fits to the case")
        return self

    @property
    def chosen(self) -> tuple[str, ...]:
        """The families to train, in order; the constant is always among them."""
        names = [name for given in self.families for name in (FAMILIES if given == "auto" else (given,))]
        return tuple(dict.fromkeys(("constant", *names)))


class Serve(_Spec):
    """What a decision comes with, how long it may take, and what the service does with its inputs and without its ledger."""

    latency: Annotated[Seconds, Field(gt=0, le=60)] | None = None  # of a decision; reasons are as exact as it leaves time for
    inputs: Literal["keep", "hash"] = "keep"  # hash: the ledger holds a keyed hash in place of a decision's inputs
    without_ledger: Literal["refuse", "spool"] = "refuse"  # spool: decide all the same, into a file that is replayed later

    reasons: Annotated[int, Field(ge=0, le=50)] = 0
    coverage: Annotated[Number, Field(ge=0.5, lt=1)] | None = None  # of prediction sets, each with what its decision guarantees


Price = Annotated[Number, Field(ge=0)]


class Compute(_Spec):
    """What computing costs, in the unit of the payoffs, and how many decisions one training serves."""

    cpu_hour: Price = 0.0
    gpu_hour: Price = 0.0
    memory_gb_hour: Price = 0.0
    decisions: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _spread(self) -> Self:
        if self.decisions is None and (self.cpu_hour or self.gpu_hour or self.memory_gb_hour):
            raise ValueError("decisions beside the prices: how many decisions one training serves, over which its cost is spread")
        return self


class Optimise(_Spec):
    """What a cheaper variant of the model may lose, money per decision, and for how long variants are tried."""

    tolerance: Annotated[Number, Field(ge=0)] | None = None  # a share of the gain over the best baseline where nothing is said
    budget: Annotated[Seconds, Field(gt=0)] = 60.0


class FalseAlarm(_Spec):
    """How rarely a kept promise may be called broken: with at most this probability in any such period."""

    probability: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    per: Annotated[Seconds, Field(gt=0)] = 365 * 86400.0


def _ends(value: Any) -> Any:
    """Let one number stand for both ends: 5000 is [-5000, 5000]."""
    return value if isinstance(value, list | tuple) or value is None else (f"-{value}", value)


class Promote(_Spec):
    """What a challenger must show before it decides, and how it is watched afterwards; money is in the payoffs' unit, a decision."""

    confidence: Annotated[Number, Field(gt=0.5, lt=1)] = 0.95
    min_gain: Annotated[Number, Field(ge=0)] = 0.0
    cap: Annotated[tuple[Number, Number] | None, BeforeValidator(_ends)] = None  # no payoff lies outside; without it: asymptotic
    share: Annotated[Number, Field(gt=0, le=0.9)] = 0.5  # of the disagreements, that go to the challenger
    harm: Annotated[Number, Field(gt=0, le=1)] | None = None  # the largest share of decisions that it may make worse
    latency: Annotated[Number, Field(ge=1)] | None = None  # how many times the champion's time for a decision it may take
    slice_loss: Annotated[Number, Field(ge=0)] | None = None  # that no level of a protected column may lose, a decision
    guard: Seconds = 30 * 86400.0  # after a promotion, during which the old champion keeps `holdback` of the disagreements
    holdback: Annotated[Number, Field(ge=0.1, le=0.5)] = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.cap is not None and not self.cap[0] < self.cap[1]:
            raise ValueError("cap as one number above 0, or as [lowest, highest] payoff of a decision")
        return self


def rate(text: Any) -> tuple[float, float]:
    """Return the amount and the seconds of a rate such as `500/week` or `20/d`.

    >>> rate("500/week"), rate("20/d"), rate("7/90d")
    ((500.0, 604800.0), (20.0, 86400.0), (7.0, 7776000.0))
    """
    if isinstance(text, list | tuple):
        text = f"{text[0]}/{text[1]}s"
    amount, _, per = str(text).partition("/")
    word = {"second": "s", "minute": "m", "hour": "h", "day": "d", "week": "w", "year": "y"}.get(per.strip(), per.strip())
    try:
        money, seconds = float(amount), duration_s(word if not word or word[0].isdigit() else f"1{word}")
    except ValueError:
        money = seconds = 0.0
    if not (math.isfinite(money) and money > 0 and seconds > 0):
        raise ValueError("an amount for each time, such as 500/week or 20/day")
    return money, seconds


class Explore(_Spec):
    """What may be spent on learning what the champion would not try: money for each time, and the least chance that is worth it."""

    budget: Annotated[tuple[float, float], BeforeValidator(rate)]
    least: Annotated[Number, Field(gt=0, le=0.5)] = 0.02


class Retrain(_Spec):
    """What a new model costs, and over how long what it gains is counted."""

    cost: Annotated[Number, Field(ge=0)] = 0.0
    horizon: Annotated[Seconds, Field(gt=0)] = 365 * 86400.0


def _missing(value: Any) -> Any:
    if value in ("impute", "failure"):
        return value
    try:
        return _finite(float(value))
    except ValueError:
        raise ValueError("impute, failure, or the money that a decision without an outcome counts for") from None


class Feedback(_Spec):
    """How a deployed model is held to its promise (MATHEMATICS §3–8).

    `tolerance` is by how much a decision may pay less than promised before the promise is broken. `missing` says what a decision counts
    for whose outcome never came: an amount, the action's worst payoff (failure), or what others like it paid (impute: missing at random).
    `block` makes one tick of all decisions in such a time: shocks within it are one event.
    """

    tolerance: Annotated[Number, Field(ge=0)] = 0.0
    false_alarm: FalseAlarm = FalseAlarm()
    block: Annotated[Seconds, Field(gt=0)] | None = None
    missing: Annotated[str | float, BeforeValidator(_missing)] = "impute"
    review: Annotated[Seconds, Field(gt=0)] = 86400.0  # between two reviews
    promote: Promote = Promote()
    explore: Explore | None = None
    retrain: Retrain = Retrain()


class Case(_Spec):
    """One business problem: data, outcome, decision, payoffs, limits.

    >>> Case.parse('''
    ... case: loans
    ... data: {source: loans.csv, outcome: defaulted}
    ... decision:
    ...   unit: EUR
    ...   actions: {approve: {payoff: {no: 0.1 * amount, yes: -0.5 * amount}}, decline: {payoff: 0}}
    ... ''').decision.unit
    'EUR'
    """

    case: Annotated[str, Field(pattern=r"^[\w][\w.-]{0,79}$")]
    about: str = ""
    data: Data
    decision: Decision
    train: Train = Train()
    serve: Serve = Serve()
    compute: Compute = Compute()
    feedback: Feedback = Feedback()
    optimise: Optimise | None = None  # no variant is tried without it

    folder: Path = Field(default=Path(), exclude=True)  # relative sources start here
    text: str = Field(default="", exclude=True)  # the file, as its author wrote it

    @model_validator(mode="after")
    def _one_coverage(self) -> Self:
        if self.decision.averse is not None and self.serve.coverage is not None:
            raise ValueError("decision.averse or serve.coverage, not both: prediction sets of coverage 1 − averse come with the former")
        return self

    @model_validator(mode="after")
    def _careful(self) -> Self:
        if self.decision.high_stakes and self.feedback.explore is not None:
            raise ValueError("no feedback.explore where decision.high_stakes is true: nobody is tried on")
        return self

    @property
    def coverage(self) -> float | None:
        """The probability with which prediction sets hold the outcome; None where the case asks for no sets."""
        return self.serve.coverage if self.decision.averse is None else 1.0 - self.decision.averse

    @classmethod
    def parse(cls, text: str, *, where: str = "case", folder: Path | None = None) -> Case:
        """Return the case that a YAML text declares; raises `CaseError` with every problem found."""
        try:
            raw = yaml.load(text, Loader=_TextLoader)  # noqa: S506  (a subclass of BaseLoader: text, lists and maps only)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            at = f"{where}, line {mark.line + 1}" if mark else where
            raise CaseError(Problem(at, "", f"YAML: {getattr(error, 'problem', None) or error}", "mend the syntax")) from None
        if not isinstance(raw, Mapping):
            raise CaseError(Problem(where, type(raw).__name__, "a mapping with case, data and decision", "see `makegood init`"))
        return cls.of(raw, where=where, folder=folder).model_copy(update={"text": text})

    @classmethod
    def of(cls, raw: Mapping[str, Any], *, where: str = "case", folder: Path | None = None) -> Case:
        """Return the case of a mapping; raises `CaseError` with every problem found, or `NotBuilt`."""
        planned = [(path, what) for path, what in NOT_BUILT.items() if _has(raw, path)]
        if planned:
            raise NotBuilt(
                *(Problem(f"{where}: {p}", "", f"a case without it: {w} is not built yet", "remove it; see ROADMAP.md") for p, w in planned)
            )
        if isinstance(raw.get("data"), Mapping) and isinstance(raw["data"].get("outcome"), list):
            expected = "one column: several labels a row are not built yet"
            raise NotBuilt(Problem(f"{where}: data.outcome", "a list", expected, "write a case for each label; see ROADMAP.md"))
        try:
            return cls.model_validate({**raw, "folder": folder or Path()})
        except ValidationError as error:
            raise CaseError(*(_problem(e, where) for e in error.errors())) from None

    @classmethod
    def load(cls, path: Path | str) -> Case:
        """Return the case of a YAML file."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise CaseError(Problem(str(path), error.strerror or "", "a readable case file", "write one with `makegood init`")) from None
        except UnicodeDecodeError:
            raise CaseError(Problem(str(path), "bytes that are not UTF-8", "a case file in UTF-8", "save it as UTF-8")) from None
        return cls.parse(text, where=path.name, folder=path.resolve().parent)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `Case.of` makes the same case."""
        return self.model_dump(mode="json", exclude_defaults=True)


class _TextLoader(yaml.BaseLoader):
    """Read text, lists and maps only; refuse a key that stands twice, and an expression that YAML would cut in two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, or raise on a repeated key (YAML would silently keep the last)."""
        seen: set[Any] = set()
        for key_node, value in node.value:
            if (
                node.flow_style
                and isinstance(value, yaml.ScalarNode)
                and not value.style
                and value.value.count("(") > value.value.count(")")
            ):
                cut = f"inside {{…}} a comma ends the value {value.value!r}: put the whole expression in quotes"
                raise yaml.constructor.ConstructorError(None, None, cut, value.start_mark)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=True)


def _has(raw: Mapping[str, Any], path: str) -> bool:
    node: Any = raw
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _fields_at(path: tuple[Any, ...]) -> list[str]:
    """Return the field names allowed at a path inside the case."""
    model: type[BaseModel] = Case
    for part in path:
        if part in model.model_fields:  # other parts are names that the user chose, as in decision.actions.NAME
            model = next(iter(_models_in(model.model_fields[part].annotation)), model)
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the specifications that an annotation such as `dict[str, Action]` or `Quantity | None` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _problem(error: Any, where: str) -> Problem:
    """Turn one pydantic finding into ours: where, got, expected, what to do."""
    path = tuple(p for p in error["loc"] if p not in ("str", "dict[str,str]"))
    at = f"{where}: {'.'.join(map(str, path))}" if path else where
    got, kind = error["input"], error["type"]
    if kind == "extra_forbidden":
        allowed = _fields_at(path[:-1])
        return Problem(at, str(path[-1]), f"one of {', '.join(allowed)}", nearest(str(path[-1]), allowed) or "remove it")
    if kind == "missing":
        return Problem(at, "nothing", "this field", "add it")
    limits = error.get("ctx", {})
    message = {
        "bool_parsing": "yes or no",
        "int_parsing": "a whole number",
        "greater_than": f"a number above {limits.get('gt', '')}",
        "greater_than_equal": f"a number of at least {limits.get('ge', '')}",
        "less_than_equal": f"a number of at most {limits.get('le', '')}",
        "less_than": f"a number below {limits.get('lt', '')}",
        "string_pattern_mismatch": "letters, digits, '.', '_' and '-', at most 80",
        "literal_error": str(limits.get("expected")),
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "tuple_type": "a list",
        "string_type": "text",
        "string_too_short": "a name",
    }.get(kind) or str(limits.get("error", error["msg"]))
    shown = got if isinstance(got, str | int | float) else ""
    return Problem(at, str(shown), message.replace("could not convert string to float", "a number, not"))
