"""Raw text in, answers out: `ErniePredictor("best_models/tnews/export").predict([...])`.

No Paddle is needed where a model runs through ONNX Runtime or OpenVINO.
"""

from .errors import PredictorError, UsageError
from .predictor import ErniePredictor, Predictor, open_folder
from .tasks import TASKS, load_task

__all__ = [
    "TASKS",
    "ErniePredictor",
    "Predictor",
    "PredictorError",
    "UsageError",
    "load_task",
    "open_folder",
]
