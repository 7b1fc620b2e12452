"""The scorer behind Ray Serve: ray_scorer.py MODEL PORT default|best

"best": dynamic request batching, as its documentation recommends for vectorised models.
"""

from __future__ import annotations

import signal
import sys
import threading

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from starlette.requests import Request

MODEL, PORT, BEST = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "best"


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Scorer:
    """One row in, its probabilities out."""

    def __init__(self, model):
        self.session = session(model)

    async def __call__(self, request: Request):
        x = np.asarray([(await request.json())["features"]], dtype=np.float32)
        return {"p": self.session.run(["raw"], {"features": x})[0][0].tolist()}


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Batched:
    """The same, scored together with whoever asks within a millisecond."""

    def __init__(self, model):
        self.session = session(model)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def score(self, rows):
        return self.session.run(["raw"], {"features": np.asarray(rows, dtype=np.float32)})[0].tolist()

    async def __call__(self, request: Request):
        return {"p": await self.score((await request.json())["features"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False, "log_level": "ERROR"})
    serve.run((Batched if BEST else Scorer).bind(MODEL))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()
