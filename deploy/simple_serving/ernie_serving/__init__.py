"""What the three servers share: settings, a queue for each model, and the HTTP application."""

import os
import sys

# deploy/ is copied as a whole, or these two folders of it: the predictor's package is used by path.
_PREDICTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "predictor")
if os.path.isdir(_PREDICTOR):
    sys.path.insert(0, os.path.abspath(_PREDICTOR))

# Paddle 2.6 brings a zlib of its own, which crashes whatever first loads Python's after it, and `paddlenlp server`
# loads Paddle first (PaddlePaddle/Paddle#70538).
import zlib  # noqa: F401

from ernie_predictor import TASKS

from .application import create_app
from .process import main
from .routes import Route
from .settings import Settings

__all__ = ["TASKS", "Route", "Settings", "create_app", "main"]
