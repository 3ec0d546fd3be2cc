"""Reading comprehension: the answer to a question is a span of a context."""

import re
from typing import ClassVar

from ..answers import read_answers
from ..errors import PredictorError
from ..formats import is_whole_number, parse_json, read_text, shown, text_of
from ..scores import cmrc_scores
from .base import Task

SPAN = {"answer": str, "start": int, "end": int, "confidence": float}

_SQUAD_BEGIN = re.compile(rb'\s*\{\s*("(data|version)"\s*:|$)')


class QuestionAnswering(Task):
    """Answers: {"answer": str, "start": int, "end": int, "confidence": float, "n_best": the same four, best first}.

    A context that is too long is cut into overlapping windows, a feature each. A question is truncated: to
    `max_query_length` tokens, or to fewer, so that a quarter of each window is the context's.
    """

    name, head, params_name = "qa", "QuestionAnswering", "question-answering"
    first, second, second_required = "question", "context", True
    expected = 'a question and a context: a pair or {"question": ..., "context": ...}'
    columns = (("question", "context"),)
    examples: ClassVar = [
        ("张伟出生于哪一年？", "张伟，1968年出生于南京，毕业于清华大学，现在是一家公司的经理，最爱吃饺子。"),
        ("长城有多长？", "长城是中国古代的军事防御工程，总长度超过2万千米，分布在15个省区市。"),
    ]
    outputs = ("start_logits", "end_logits")
    has_labels = False
    defaults: ClassVar = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 50}
    answer_columns: ClassVar = {**SPAN, "n_best": [SPAN]}
    tensors = SPAN
    triton_tensors: ClassVar = {**SPAN, "n_best": str, "truncated": bool}
    scores, score = ("exact_match", "f1"), "exact_match"
    packages_to_score = ("nltk",)

    def __init__(self, tokenizer, max_seq_length, id2label=None, params=None):
        super().__init__(tokenizer, max_seq_length, id2label, params)
        self.usual_length = max_seq_length  # the windows of a long context are full

    def limit(self):
        longest = self.tokenizer.longest_query(self.max_seq_length, self.params["max_query_length"])
        return "question", longest

    def overlap(self):
        return max(1, -(-self.max_seq_length // self.params["doc_stride"]))

    def _check_text(self, name, text):
        if name == "question" and text == "":
            return  # CMRC2018 itself has an empty question
        super()._check_text(name, text)

    def tokenize(self, pairs):
        """As `Task.tokenize`; a note is (offsets of the context's wordpieces, windows), and a window, for each of the
        pair's features, is (first context piece in it, slice of its context pieces in the feature)."""
        questions = self.tokenizer.encode([question for question, _ in pairs], offsets=False)
        # Many questions share a context: it is tokenized once.
        contexts = list(dict.fromkeys(context for _, context in pairs))
        encoded = dict(zip(contexts, self.tokenizer.encode(contexts)))
        features, notes = [], []
        for question, (_, context) in zip(questions, pairs):
            windows = []
            for input_ids, token_type_ids, first, begin in self.tokenizer.build_windows(
                question,
                encoded[context],
                self.max_seq_length,
                self.params["doc_stride"],
                self.params["max_query_length"],
            ):
                windows.append((first, slice(begin, len(input_ids) - 1)))
                query_length = begin - 2
                features.append((input_ids, token_type_ids))
            notes.append((encoded[context].offsets, windows))
            self.truncated += query_length < len(question.ids)
        return features, notes

    def read(self, pairs, notes, logits):
        answers, logits = [], iter(logits)
        for (_, context), (offsets, windows) in zip(pairs, notes):
            windows = [(start[inside], end[inside], first) for (first, inside), (start, end) in zip(windows, logits)]
            n_best = read_answers(
                windows, context, offsets, self.params["n_best_size"], self.params["max_answer_length"]
            )
            answers.append({**n_best[0], "n_best": n_best})
        return answers

    @staticmethod
    def read_file(path, labelled):
        """SQuAD-style JSON as CMRC2018 has it; answers also as Hugging Face's datasets write them. Examples have
        "question", "context" and "answers", [{"text", "answer_start"}] (none if not labelled)."""
        document = parse_json(read_text(path), path, 1, SQUAD)
        if not isinstance(document, dict):
            raise PredictorError(f"{path}: got {shown(document)}, expected {SQUAD}")
        examples = []
        for article, article_place in _objects(document, "data", path, ""):
            for paragraph, paragraph_place in _objects(article, "paragraphs", path, article_place):
                for qa, place in _objects(paragraph, "qas", path, paragraph_place):
                    where = f"{path} {place}" + (f" (id {shown(qa['id'])})" if "id" in qa else "")
                    examples.append(
                        {
                            "id": qa.get("id"),
                            "where": where,
                            # CMRC2018 itself has an empty question.
                            "question": text_of(qa, "question", where, may_be_empty=True),
                            "context": text_of(paragraph, "context", where),
                            "answers": answers_of(qa, where) if labelled else [],
                        }
                    )
        return examples

    @staticmethod
    def item(example):
        return example["question"], example["context"]

    @staticmethod
    def gold(example):
        return [answer["text"] for answer in example["answers"]]

    @staticmethod
    def score_answers(answers, gold):
        return cmrc_scores([answer["answer"] for answer in answers], gold)

    @staticmethod
    def is_data_file(ending, line):
        return _SQUAD_BEGIN.match(line) is not None

    @staticmethod
    def lines(answer):
        """The three best answers."""
        best = answer["n_best"][:3]
        return [f"{a['answer']}  [{a['start']}:{a['end']}]    confidence {a['confidence']:.3f}" for a in best]


# The data files: one JSON object.

ANSWERS = '[{"text": "...", "answer_start": 0}]'
SQUAD = (
    """one JSON object in SQuAD's format, {"data": [{"paragraphs": [{"context": "...", "qas": """
    f"""[{{"id": "...", "question": "...", "answers": {ANSWERS}}}]}}]}}]}}"""
)


def _objects(parent, key, path, place):
    """Yields (object, its place) of the list that a JSON object has under `key`."""
    prefix = f"{path} {place}".rstrip()
    if key not in parent:
        raise PredictorError(f"{prefix}: no field `{key}`; it has {', '.join(parent) or 'none'}; expected {SQUAD}")
    if not isinstance(parent[key], list):
        raise PredictorError(f"{prefix}: `{key}` is {shown(parent[key])}, expected a list: {SQUAD}")
    for index, child in enumerate(parent[key]):
        child_place = f"{place}.{key}[{index}]".lstrip(".")
        if not isinstance(child, dict):
            raise PredictorError(f"{path} {child_place} is {shown(child)}, expected an object: {SQUAD}")
        yield child, child_place


def answers_of(qa, where):
    """A question's answers, [{"text": str, "answer_start": int}], of which there must be one at least."""
    answers = qa.get("answers")
    if isinstance(answers, dict):
        # Hugging Face's datasets turn a list of objects into an object of lists.
        texts, starts = answers.get("text"), answers.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    if answers is None or answers == []:
        raise PredictorError(f"{where} has no answers; expected `answers` like {ANSWERS}")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        others = '{"text": ["..."], "answer_start": [0]}'
        raise PredictorError(f"{where}: `answers` is {shown(answers)}, expected {ANSWERS} or {others}")
    for answer in answers:
        text_of(answer, "text", where)
        if not is_whole_number(answer.get("answer_start")):
            raise PredictorError(
                f"{where}: `answer_start` is {shown(answer.get('answer_start'))}, expected a whole number, "
                "the position in `context` of the answer's first character"
            )
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in answers]
