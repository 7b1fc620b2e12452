"""The scorer behind BentoML, for `bentoml serve bentoml_scorer:Scorer` with MODEL and MODE (default, or best) in the environment.

"best": adaptive batching, as its documentation recommends for throughput.
"""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime as ort

BATCHED = os.environ["MODE"] == "best"


@bentoml.service(workers=1)
class Scorer:
    """Rows in, their probabilities out."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=BATCHED, max_batch_size=64, max_latency_ms=100)
    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.session.run(["raw"], {"features": features.astype(np.float32)})[0]
