"""Serves a classifier of texts or pairs at POST /models/ernie_cls.

python server_seq_cls.py --model_path ../../best_models/afqmc/export --port 8189
paddlenlp server server_seq_cls:app --host 0.0.0.0 --port 8189          (MODEL_PATH in the environment)

{"data": {"text": ["...", "..."], "text_pair": ["...", "..."]}, "parameters": {"max_seq_len": 128, "batch_size": 32}}
gives {"result": {"label": [1, 0], "label_name": ["...", "..."], "confidence": [0.9, 0.8]}}
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from ernie_serving import TASKS, Route, create_app, main

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "afqmc", "export")


RESULT = TASKS["seq_cls"].tensors


def write_result(task, items, answers):
    """`label` holds class numbers, as PaddleNLP's clients expect; `label_name` their names."""
    rows = [task.to_tensors(answer) for answer in answers]
    return {name: [row[name] for row in rows] for name in RESULT}


ROUTE = Route(TASKS["seq_cls"], "ernie_cls", write_result, RESULT, DEFAULT_MODEL)


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
