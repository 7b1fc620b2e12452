"""What a saved Keras model may say of itself: built-in objects only, by name, out of the lists below.

Keras looks the names in a configuration up, imports modules for them and calls what it finds. Each published hole came that way: code
in a `Lambda` (CVE-2024-3660), any module and function (CVE-2025-1550), a download by `get_file` (CVE-2025-8747), switches that turn the
safe mode off or a format that has none (CVE-2025-9905, -9906), a vocabulary that is a path (CVE-2025-12058), a pickle in a
`TorchModuleWrapper` (CVE-2025-49655). So a class is allowed by name or not at all, whatever Keras itself would say.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from makegood.errors import Problem, Refused

MAX_BYTES = 8 << 20
MAX_VALUES, MAX_DEPTH, MAX_LAYERS = 200_000, 100, 2_000
MAX_TEXT, MAX_NUMBER = 1_000, 2**31


def _snake(name: str) -> str:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"\W|(?<=[a-zA-Z0-9])([A-Z][a-z]+)", lambda m: f"_{m[0]}", name)).lower()


MODELS = frozenset("Sequential Functional Model".split())
LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
    AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D AveragePooling2D
    AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D
    DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D
    MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN
    RandomBrightness RandomContrast RandomCrop RandomErasing RandomFlip RandomRotation RandomTranslation RandomZoom ReLU RepeatVector
    Rescaling Reshape Resizing ReversibleEmbedding SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)
OPERATIONS = frozenset(
    """
    Absolute Add Amax Amin Argmax Argmin Average BroadcastTo Ceil Clip Concatenate Cos Cosh Cumprod Cumsum Divide Dot Einsum Equal Exp
    ExpandDims Expm1 Flip Floor FloorDivide GetItem Greater GreaterEqual Less LessEqual Log Log10 Log1p Log2 LogicalAnd LogicalNot
    LogicalOr Matmul Max Maximum Mean Median Min Minimum Mod Moveaxis Multiply Negative NotEqual OnesLike Outer Pad Power Prod Ravel
    Reciprocal Repeat Reshape Roll Round Sign Sin Sinh Sort Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take
    TakeAlongAxis Tan Tanh Tensordot Tile Transpose TrueDivide Var Where ZerosLike AveragePool BatchNorm Celu Conv DepthwiseConv
    DotProductAttention Elu Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments
    Normalize OneHot RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax Softplus Softsign Squareplus Cast
    ConvertToTensor Slice StopGradient Unstack Erf Logsumexp Rsqrt TopK
    """.split()
)
INITIALIZERS = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones Orthogonal
    OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    """.split()
)
REGULARIZERS = frozenset("L1 L2 L1L2 OrthogonalRegularizer".split())
CONSTRAINTS = frozenset("MaxNorm MinMaxNorm NonNeg UnitNorm".split())
LOSSES = frozenset(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy
    CategoricalHinge CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanAbsolutePercentageError
    MeanSquaredError MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge Tversky LossFunctionWrapper
    """.split()
)
METRICS = frozenset(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy CategoricalHinge
    ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives FalsePositives Hinge IoU KLDivergence LogCoshError Mean
    MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError MeanSquaredLogarithmicError OneHotIoU
    OneHotMeanIoU PearsonCorrelation Poisson Precision PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError
    SensitivityAtSpecificity SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy
    SpecificityAtSensitivity SquaredHinge Sum TopKCategoricalAccuracy TrueNegatives TruePositives
    """.split()
)
OPTIMIZERS = frozenset(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop SGD ScheduleFreeAdamW".split()
)
SCHEDULES = frozenset("CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay".split())
ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid log_softmax mish
    relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh
    tanh_shrink threshold
    """.split()
)
_SHORT = frozenset("bce BCE kld KLD mae MAE mse MSE mape MAPE msle MSLE acc accuracy ce crossentropy binary_accuracy".split())


def _with_aliases(names: Iterable[str], *more: str) -> frozenset[str]:
    return frozenset([*names, *map(_snake, names), *more])


SCORES = _with_aliases(LOSSES | METRICS, *_SHORT, "log_cosh")
NAMED = {  # the last word of a key → the names of functions and objects that a text there may be
    "activation": ACTIVATIONS,
    "initializer": _with_aliases(INITIALIZERS, "normal", "uniform", "one", "zero"),
    "regularizer": _with_aliases(REGULARIZERS, "l1_l2", "l1l2"),
    "constraint": _with_aliases(CONSTRAINTS),
    "loss": SCORES,
    "metrics": SCORES,
    "fn": SCORES,
    "optimizer": _with_aliases(OPTIMIZERS, *(name.lower() for name in OPTIMIZERS)),
}
FUNCTIONS = ACTIVATIONS | SCORES

_ENGINE = "keras.src.models.functional keras.src.models.sequential keras.src.engine.functional keras.src.engine.sequential"
_OPS = "keras.ops keras.src.ops.numpy keras.src.ops.nn keras.src.ops.core keras.src.ops.math"
BUILT_IN = (  # the modules in which these classes may be said to be
    (frozenset(f"keras keras.models {_ENGINE}".split()), MODELS),
    (frozenset(["keras.layers"]), LAYERS),
    (frozenset(_OPS.split()), OPERATIONS),
    (frozenset(["keras.initializers"]), INITIALIZERS),
    (frozenset(["keras.regularizers"]), REGULARIZERS),
    (frozenset(["keras.constraints"]), CONSTRAINTS),
    (frozenset(["keras.losses"]), LOSSES),
    (frozenset(["keras.metrics"]), METRICS),
    (frozenset(["keras.optimizers", *(f"keras.src.backend.torch.optimizers.torch_{n.lower()}" for n in OPTIMIZERS)]), OPTIMIZERS),
    (frozenset(["keras.optimizers.schedules"]), SCHEDULES),
    (frozenset(["keras", "keras.dtype_policies"]), frozenset(["DTypePolicy"])),
    (frozenset(["keras.random"]), frozenset(["SeedGenerator"])),
)
_FUNCTION_MODULES = frozenset(["builtins", "keras.activations", "keras.losses", "keras.metrics"])
_VALUES = {  # values that JSON cannot hold → the parts of their `config`
    "__keras_tensor__": {"shape", "dtype", "keras_history"},
    "__tensor__": {"value", "dtype"},
    "__numpy__": {"value", "dtype"},
    "__slice__": {"start", "stop", "step"},
}
_TUPLES = {"__tuple__", "TensorShape"}  # in the older format: class_name and items
_NUMERIC = re.compile(r"bool|u?int(8|16|32|64)|b?float(16|32|64)")

_CODE, _OPENS = "it carries Python code", "it opens a file"
DANGEROUS = {
    "Lambda": _CODE,
    "__lambda__": _CODE,
    "FlaxLayer": _CODE,
    "JaxLayer": _CODE,
    "TorchModuleWrapper": "it carries a pickle",
    "TFSMLayer": "it loads and runs another model from a path",
    "StringLookup": _OPENS,
    "IntegerLookup": _OPENS,
    "TextVectorization": _OPENS,
    "__bytes__": "it carries bytes, which can be code",
    "__typespec__": "it looks a type up by name",
}
_PATH = re.compile(r"^[/\\~]|^[A-Za-z]:[/\\]|^\.{1,2}[/\\]|://|(^|[/\\])\.\.([/\\]|$)|\\|^(file|data):")
_BUILT_IN_ONLY = "a built-in layer, loss or optimiser of Keras that runs no code of its own and opens no file"


@dataclass(frozen=True)
class _Node:
    value: Any
    where: str
    depth: int
    named: frozenset[str] | None  # what a text here may be, if it names a function or an object
    large: bool  # may a number here be any number?


def parse(data: bytes, where: str) -> Any:
    """Return what JSON text holds; raises `Refused` where it is not strictly JSON, nested too deep or too long, or repeats a key."""
    if len(data) > MAX_BYTES:
        raise Refused(Problem(where, f"{len(data) / 2**20:.1f} MiB", f"at most {MAX_BYTES >> 20} MiB of JSON"))
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except RecursionError:
        raise Refused(Problem(where, "JSON that is nested too deep", f"at most {MAX_DEPTH} levels")) from None
    except ValueError as error:  # not UTF-8, not JSON, a repeated key, NaN, a number of thousands of digits
        got = f"text that is not strictly JSON ({str(error)[:120]})"
        raise Refused(Problem(where, got, "JSON in UTF-8, each key once", "save the model again")) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def check_model(config: object, where: str, *, legacy: bool) -> None:
    """Raise `Refused` unless a configuration describes a model made of allowed objects; `legacy`: the older format names no modules."""
    if not isinstance(config, dict) or str(config.get("class_name")) not in MODELS:
        got = f"{config.get('class_name')}"[:80] if isinstance(config, dict) else type(config).__name__
        raise Refused(Problem(where, got, "Sequential or Functional", "a class of your own cannot be read: build it of layers"))
    check_objects(config, where, legacy=legacy)


def check_objects(config: object, where: str, *, legacy: bool) -> None:
    """Raise `Refused` unless every object in a configuration is allowed, and no text, number or nesting is beyond the limits."""
    seen = layers = 0
    stack = [_Node(config, where, 0, None, False)]
    while stack:
        node = stack.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise Refused(Problem(where, f"more than {MAX_VALUES:,} values", "a configuration of a model"))
        if node.depth > MAX_DEPTH:
            raise Refused(Problem(where, "JSON that is nested too deep", f"at most {MAX_DEPTH} levels"))
        if isinstance(node.value, dict):
            if "class_name" in node.value:
                _check_object(node.value, node.where, legacy)
                layers += node.value["class_name"] in LAYERS
            stack += _children(node)
        elif isinstance(node.value, list):
            stack += (_Node(v, f"{node.where}[{i}]", node.depth + 1, node.named, node.large) for i, v in enumerate(node.value))
        else:
            _check_plain(node)
        if layers > MAX_LAYERS:
            raise Refused(Problem(where, f"more than {MAX_LAYERS:,} layers", f"at most {MAX_LAYERS:,}"))


def _children(node: _Node) -> Iterator[_Node]:
    inside = "class_name" in node.value
    for key, value in node.value.items():
        _check_text(key, f"{node.where}, a key")
        if inside and key in ("class_name", "module", "registered_name"):
            continue  # judged with their object
        if inside and key == "config" and node.value["class_name"] == "function":
            continue
        named = NAMED.get(key.rpartition("_")[2]) or (None if inside else node.named)
        where = f"{node.where}{'.' if node.depth else ', '}{key}"
        yield _Node(value, where, node.depth + 1, named, key in ("seed", "shared_object_id") or (node.large and not inside))


def _check_plain(node: _Node) -> None:
    value = node.value
    if isinstance(value, str):
        if node.named is not None and value not in node.named:
            raise _not_allowed(node.where, value)
        _check_text(value, node.where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Refused(Problem(node.where, str(value), "finite numbers"))
    elif isinstance(value, int) and abs(value) > MAX_NUMBER and not node.large:
        raise Refused(Problem(node.where, str(value)[:40], f"sizes up to {MAX_NUMBER}"))


def _check_text(text: str, where: str) -> None:
    if len(text) > MAX_TEXT or not text.isprintable():
        raise Refused(Problem(where, text[:80], f"printable text of at most {MAX_TEXT:,} letters"))
    if _PATH.search(text):
        raise Refused(Problem(where, text[:80], "no path and no address", "a model holds its numbers, and looks nowhere else"))


def _check_object(found: dict[str, Any], where: str, legacy: bool) -> None:
    """Raise `Refused` unless the class, its module and its registered name are one of the built-in ones."""
    name, module, registered, config = found["class_name"], found.get("module"), found.get("registered_name"), found.get("config")
    if isinstance(name, str) and name in DANGEROUS:
        raise _not_allowed(where, f"{name} ({DANGEROUS[name]})")
    if module is None and isinstance(name, str) and _is_value(name, found):
        return
    if function := name == "function":
        name = config
        places = [_FUNCTION_MODULES] if isinstance(name, str) and name in FUNCTIONS else []
    else:
        places = [modules for modules, classes in BUILT_IN if isinstance(name, str) and name in classes]
    if not places or not (function or isinstance(config, dict)):
        raise _not_allowed(where, str(name))
    if not (module is None and legacy) and not (isinstance(module, str) and any(module in place for place in places)):
        raise Refused(Problem(f"{where}, module", str(module)[:80], f"one of {', '.join(sorted(places[0]))[:200]}"))
    if registered not in (None, name) and not (function and registered == "function"):
        raise Refused(Problem(f"{where}, registered_name", str(registered)[:80], "none: no class of your own is known here"))


def _not_allowed(where: str, got: str) -> Refused:
    trained = "compile_config" in where or "training_config" in where
    mend = "save a clone (keras.models.clone_model, set_weights): it has no loss, metric and optimiser" if trained else "use another layer"
    return Refused(Problem(where, got[:80], _BUILT_IN_ONLY, mend))


def _is_value(name: str, found: dict[str, Any]) -> bool:
    """Return whether this is one of the values that JSON has no form for, in the form that Keras gives it."""
    if name in _TUPLES:
        return found.keys() == {"class_name", "items"} and isinstance(found["items"], list)
    if name == "__ellipsis__":
        return found.keys() <= {"class_name", "config"} and not found.get("config")
    config = found.get("config")
    if name not in _VALUES or not isinstance(config, dict) or config.keys() != _VALUES[name]:
        return False
    kind = config.get("dtype", "float32")
    return isinstance(kind, str) and _NUMERIC.fullmatch(kind) is not None
