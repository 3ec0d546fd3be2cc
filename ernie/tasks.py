"""The tasks and the published data sets: a row each, with everything in which they differ.

A data set of your own, in the format of one of these, needs no row (`--data_dir`); a further published one is one.
"""

from dataclasses import dataclass, field

from ernie_predictor.dev_sets import NO_AGREEMENT, SUFFIXES


@dataclass(frozen=True)
class Task:
    name: str  # --task_name of the predictor
    head: str  # the end of the model's class in PaddleNLP and Hugging Face, and the task's block in the YAML file
    script: str
    score: str  # by which the best checkpoint is chosen and models are compared
    scores: tuple  # all that metrics.json holds
    outputs: tuple  # names of the ONNX model's outputs

    @property
    def suffix(self):
        """Of the data set's files."""
        return SUFFIXES[self.name][0]

    @property
    def compress_script(self):
        return self.script.replace("run_", "compress_")


SEQ_CLS = Task("seq_cls", "SequenceClassification", "run_seq_cls.py", "accuracy", ("accuracy",), ("logits",))
TOKEN_CLS = Task(
    "token_cls",
    "TokenClassification",
    "run_token_cls.py",
    "f1",
    ("precision", "recall", "f1"),
    ("logits",),
)
QA = Task("qa", "QuestionAnswering", "run_qa.py", "exact_match", ("exact_match", "f1"), ("start_logits", "end_logits"))
TASKS = {task.name: task for task in (SEQ_CLS, TOKEN_CLS, QA)}

# The trivial baselines that metrics.json puts beside a score.
BASELINES = {
    "majority_class": "always the commonest label",
    "f1_of_all_O": "no entity anywhere",
    "question_blind": "the best that ignores the question",
}


@dataclass(frozen=True)
class DataSet:
    name: str
    task: Task
    # In PaddleNLP's order (paddlenlp.datasets), which is the order of the classes in everybody's fine-tuned models.
    labels: tuple = ()
    # CLUE's leaderboard takes <this>_predict.json; a renewed test set has a name of its own (submission rules, 1.1).
    leaderboard: str = None
    hub: str = "clue"  # PaddleNLP's data set builder
    hub_splits: dict = field(default_factory=dict)  # the builder's name for a split, where it is another

    @property
    def no_agreement(self):
        """The label of rows on which the annotators did not agree: left out."""
        return NO_AGREEMENT.get(self.name)


TNEWS_LABELS = "100 101 102 103 104 106 107 108 109 110 112 113 114 115 116"
MSRA_LABELS = "B-PER I-PER B-ORG I-ORG B-LOC I-LOC O"

DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet("afqmc", SEQ_CLS, ("0", "1")),
        DataSet("tnews", SEQ_CLS, tuple(TNEWS_LABELS.split()), leaderboard="tnews11"),
        DataSet("iflytek", SEQ_CLS, tuple(map(str, range(119)))),
        DataSet("ocnli", SEQ_CLS, ("entailment", "contradiction", "neutral"), leaderboard="ocnli_50k"),
        DataSet("cmnli", SEQ_CLS, ("contradiction", "entailment", "neutral")),
        DataSet("cluewsc2020", SEQ_CLS, ("true", "false"), leaderboard="cluewsc11"),
        DataSet("csl", SEQ_CLS, ("0", "1")),
        # PaddleNLP's MSRA_NER has no dev split, and its CMRC2018 calls the test split "trial".
        DataSet("msra_ner", TOKEN_CLS, tuple(MSRA_LABELS.split()), hub="msra_ner", hub_splits={"dev": "test"}),
        DataSet("cmrc2018", QA, hub="cmrc2018", hub_splits={"test": "trial"}),
    )
}
