"""What the six scripts share, in the order in which data passes through it; a file of `ernie/` a step."""

import workarounds  # noqa: F401  isort: skip  before Paddle

from ernie.arguments import MAIN_SCORE, CompressionArguments, UsageError, UserError, parse_arguments, run
from ernie.data import find_labels, label_ids, load_examples
from ernie.models import load_model, load_tokenizer
from ernie.features import Collator, longest_first, qa_features, seq_cls_features, token_cls_features
from ernie.metrics import accuracy, cmrc_scores, entity_scores, majority_share, question_blind_share
from ernie.training import ErnieTrainer, check_writable, find_checkpoint, training_settings
from ernie.export import dev_metrics, export_model, read_metrics, save_model, write_json
from ernie.compression import CompressionTrainer
from ernie.predictions import classify, find_answers, find_entities, write_predictions

__all__ = [
    "MAIN_SCORE",
    "Collator",
    "CompressionArguments",
    "CompressionTrainer",
    "ErnieTrainer",
    "UsageError",
    "UserError",
    "accuracy",
    "check_writable",
    "classify",
    "cmrc_scores",
    "dev_metrics",
    "entity_scores",
    "export_model",
    "find_answers",
    "find_checkpoint",
    "find_entities",
    "find_labels",
    "label_ids",
    "load_examples",
    "load_model",
    "load_tokenizer",
    "longest_first",
    "majority_share",
    "parse_arguments",
    "qa_features",
    "question_blind_share",
    "read_metrics",
    "run",
    "save_model",
    "seq_cls_features",
    "token_cls_features",
    "training_settings",
    "write_json",
    "write_predictions",
]
