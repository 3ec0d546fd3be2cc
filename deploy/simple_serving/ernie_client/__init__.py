"""What the three clients share: requests with retries, a dev set with several requests in flight, and flags.

Needs requests, tqdm and ../predictor's package with NumPy; none of what the servers need.
"""

import os
import sys

# deploy/ is copied as a whole, or these two folders of it: the predictor's package is used by path.
_PREDICTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "predictor")
if os.path.isdir(_PREDICTOR):
    sys.path.insert(0, os.path.abspath(_PREDICTOR))

from .client import Client
from .commandline import main

__all__ = ["Client", "main"]
