"""Serves a model of named entities at POST /models/ernie_ner.

python server_token_cls.py --model_path ../../best_models/msra_ner/export --port 8189
paddlenlp server server_token_cls:app --host 0.0.0.0 --port 8189        (MODEL_PATH in the environment)

{"data": {"text": ["...", "..."]}} gives {"result": {"value": [[{"pos": [0, 2], "entity": "...", "label": "LOC",
"confidence": 0.9}], []]}}; `pos` are characters of the text, end exclusive. A text may also be a list of tokens.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from ernie_serving import Route, create_app, main
from ernie_serving.fields import texts_of

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "msra_ner", "export")


def read_data(data):
    """`text`: a text, a list of texts, or a list of lists of tokens, as PaddleNLP's client sends it."""
    return texts_of(data, "text", known=("text", "text_pair"), tokens=True)


def write_result(service, items, answers):
    """`value`: the entities of each text, as PaddleNLP's clients expect them."""
    return {"value": [[{"pos": [e.pop("start"), e.pop("end")], **e} for e in map(dict, answer)] for answer in answers]}


ROUTE = Route("token_cls", "ernie_ner", read_data, write_result, DEFAULT_MODEL)


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
