"""The scorer behind LitServe: litserve_scorer.py MODEL PORT default|best

"best": ZeroMQ queues ("for high-throughput scenarios") and dynamic batching, as its documentation recommends.
"""

from __future__ import annotations

import sys

import litserve as ls
import numpy as np
import onnxruntime as ort


class Scorer(ls.LitAPI):
    """One row in, its probabilities out."""

    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.asarray(request["features"], dtype=np.float32)

    def predict(self, x):
        return self.session.run(["raw"], {"features": np.atleast_2d(x)})[0]

    def encode_response(self, output):
        return {"p": np.ravel(output).tolist()}


if __name__ == "__main__":
    best = sys.argv[3] == "best"
    api = Scorer(max_batch_size=64, batch_timeout=0.001) if best else Scorer()
    server = ls.LitServer(api, accelerator="cpu", fast_queue=best)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
