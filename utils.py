"""What the six scripts share, in the order in which data passes through it; a file of `ernie/` per step."""

import workarounds  # isort: skip  before Paddle

from ernie.tasks import TASKS
from ernie.arguments import CompressionArguments, parse_arguments
from ernie.data import find_labels, load_splits
from ernie.models import check_model, load_model, load_task
from ernie.features import make_features
from ernie.training import ErnieTrainer, check_training
from ernie.results import read_metrics, write_predictions, write_settings
from ernie.export import export_model
from ernie.compression import Compression
from ernie.files import check_replaceable, check_writable
from ernie.errors import run
