"""Named entity recognition: TEXT in; its entities as JSON out, in the predictor's form and in the published one."""

import json

from text_model import TextModel


class TritonPythonModel(TextModel):
    task_name = "token_cls"
    inputs = ("TEXT",)

    def columns(self, answers):
        # The published form: `pos` is the first and the last character.
        published = [[{"pos": [e["start"], e["end"] - 1], "label": e["label"]} for e in answer] for answer in answers]
        return {
            "entities": [json.dumps(answer, ensure_ascii=False) for answer in answers],
            "OUTPUT": [json.dumps(entities, ensure_ascii=False) for entities in published],
        }
