"""Save the scorer as an MLflow model, for `mlflow models serve`: mlflow_model.py MODEL FOLDER"""

from __future__ import annotations

import sys

import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import infer_signature

model = onnx.load(sys.argv[1])
width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
signature = infer_signature(np.zeros((1, width), dtype=np.float32))
options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
mlflow.onnx.save_model(model, sys.argv[2], signature=signature, onnx_session_options=options, pip_requirements=["onnxruntime"])
