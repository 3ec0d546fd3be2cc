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

from ernie_serving import Route, create_app, main
from ernie_serving.fields import texts_of

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "afqmc", "export")


def read_data(data):
    """`text`, and for pairs `text_pair`: a text or a list of texts."""
    texts = texts_of(data, "text", known=("text", "text_pair"))
    if data.get("text_pair") is None:
        return texts
    return list(zip(texts, texts_of(data, "text_pair", like=texts)))


def write_result(service, items, answers):
    """`label` holds class numbers, as PaddleNLP's clients expect; `label_name` their names."""
    return {
        "label": [service.numbers[answer["label"]] for answer in answers],
        "label_name": [answer["label"] for answer in answers],
        "confidence": [answer["confidence"] for answer in answers],
    }


ROUTE = Route("seq_cls", "ernie_cls", read_data, write_result, DEFAULT_MODEL)


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
