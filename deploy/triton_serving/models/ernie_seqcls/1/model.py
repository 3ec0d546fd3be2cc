"""Classification: TEXT, for pairs also TEXT_PAIR, in; class number, class name and confidence out."""

from text_model import TextModel


class TritonPythonModel(TextModel):
    task_name = "seq_cls"
    inputs = ("TEXT", "TEXT_PAIR")

    def columns(self, answers):
        return {
            "label": [self.numbers[answer["label"]] for answer in answers],
            "label_name": [answer["label"] for answer in answers],
            "confidence": [answer["confidence"] for answer in answers],
        }
