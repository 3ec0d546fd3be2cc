"""Serves a model of reading comprehension at POST /models/ernie_qa.

python server_qa.py --model_path ../../best_models/cmrc2018/export --port 8189
paddlenlp server server_qa:app --host 0.0.0.0 --port 8189               (MODEL_PATH in the environment)

{"data": {"question": ["..."], "context": ["..."]}, "parameters": {"max_seq_len": 384, "doc_stride": 128}}
gives {"result": {"question": [...], "context": [...], "answer": ["..."], "start": [3], "end": [7], "confidence": [0.9],
"n_best": [[...]]}}; `start` and `end` are characters of the context, end exclusive.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from ernie_serving import Route, create_app, main
from ernie_serving.fields import texts_of

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "cmrc2018", "export")


def read_data(data):
    """`question` and `context`: a text or a list of texts each."""
    questions = texts_of(data, "question", known=("question", "context"))
    return list(zip(questions, texts_of(data, "context", like=questions)))


def write_result(service, items, answers):
    """`question`, `context` and `answer` as PaddleNLP's clients expect them."""
    one = {key: [answer[key] for answer in answers] for key in ("answer", "start", "end", "confidence", "n_best")}
    questions, contexts = zip(*items)
    return {"context": contexts, "question": questions, **one}


ROUTE = Route("qa", "ernie_qa", read_data, write_result, DEFAULT_MODEL)


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
