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

from ernie_serving import TASKS, Route, create_app, main

DEFAULT_MODEL = os.path.join(HERE, "..", "..", "best_models", "cmrc2018", "export")


RESULT = {"question": str, "context": str, **TASKS["qa"].answer_columns}


def write_result(task, items, answers):
    """`question`, `context` and `answer` as PaddleNLP's clients expect them."""
    one = {name: [answer[name] for answer in answers] for name in TASKS["qa"].answer_columns}
    questions, contexts = zip(*items)
    return {"context": contexts, "question": questions, **one}


ROUTE = Route(TASKS["qa"], "ernie_qa", write_result, RESULT, DEFAULT_MODEL)


def make_app(settings=None):
    return create_app([ROUTE], settings)


if __name__ == "__main__":
    main(make_app, __doc__)
else:
    app = make_app()
