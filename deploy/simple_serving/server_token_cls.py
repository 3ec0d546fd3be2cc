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

from ernie_serving import TASKS, Route, create_app, main

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "msra_ner", "export")


RESULT = {"value": [{"entity": str, "label": str, "pos": (int, int), "confidence": float}]}


def write_result(task, items, answers):
    """`value`: the entities of each text, as PaddleNLP's clients expect them."""
    return {"value": [[{"pos": [e.pop("start"), e.pop("end")], **e} for e in map(dict, answer)] for answer in answers]}


ROUTE = Route(TASKS["token_cls"], "ernie_ner", write_result, RESULT, DEFAULT_MODEL, True, ("text_pair",))


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
