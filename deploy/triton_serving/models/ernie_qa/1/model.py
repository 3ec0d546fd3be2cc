"""Reading comprehension: QUESTION and CONTEXT in; the answer, its position in the context, and n-best as JSON out."""

import json

from text_model import TextModel


class TritonPythonModel(TextModel):
    task_name = "qa"
    inputs = ("QUESTION", "CONTEXT")

    def columns(self, answers):
        return {
            **{name: [answer[name] for answer in answers] for name in ("answer", "start", "end", "confidence")},
            "n_best": [json.dumps(answer["n_best"], ensure_ascii=False) for answer in answers],
        }
