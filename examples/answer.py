"""Answers through ONNX Runtime, without Paddle: what an exported model folder can do.

python examples/answer.py best_models/quickstart/tnews/export                one built-in example
echo 一句话 | python examples/answer.py best_models/quickstart/tnews/export -    a text a line; pairs, and question
                                                                            and context, with a tab between them
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "deploy" / "predictor"))
from ernie_tokenizer import ErnieTokenizer, usable_cores
from onnx_session import open_session
from postprocess import read_answers, read_classes, read_entities

EXAMPLES = {
    "SequenceClassification": ["今年的苹果又大又甜，果农的收入增加了"],
    "TokenClassification": ["记者李小明昨天从北京来到上海大学采访。"],
    "QuestionAnswering": [
        "张伟出生于哪一年？\t张伟，1968年出生于南京，毕业于清华大学，现在是一家公司的经理，最爱吃饺子。"
    ],
}


def answer(task, session, tokenizer, config, line):
    """The answer to one line: tokenize, run, read."""
    text, _, second = line.partition("\t")
    encoding, pair = tokenizer.encode([text, second])
    if task == "QuestionAnswering":
        params = config["task_specific_params"]["question-answering"]
        windows = []
        for input_ids, token_type_ids, first, begin in tokenizer.build_windows(
            encoding, pair, tokenizer.model_max_length, params["doc_stride"], params["max_query_length"]
        ):
            start, end = session.run(None, tokenizer.pad([(input_ids, token_type_ids)]))
            inside = slice(begin, len(input_ids) - 1)
            windows.append((start[0, inside], end[0, inside], first))
        return read_answers(windows, second, pair.offsets, params["n_best_size"], params["max_answer_length"])[0]
    id2label = {int(key): label for key, label in config["id2label"].items()}
    pair_ids = pair.ids if second else None
    (logits,) = session.run(None, tokenizer.pad([tokenizer.build_inputs(encoding.ids, pair_ids)]))
    if task == "TokenClassification":
        return read_entities(logits[0, 1:-1], id2label, text, encoding.offsets)
    return read_classes(logits, id2label)[0]


def main():
    if len(sys.argv) not in (2, 3) or not Path(sys.argv[1], "model.onnx").exists():
        sys.exit(f"{__doc__}\nerror: expected an exported model folder, one with model.onnx")
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    task = config["architectures"][0].removeprefix("ErnieFor")
    tokenizer = ErnieTokenizer.from_pretrained(folder)
    session = open_session(folder / "model.onnx", "onnxruntime", usable_cores())
    lines = sys.stdin.read().strip("\n").split("\n") if len(sys.argv) == 3 else EXAMPLES[task]
    for line in lines:
        result = answer(task, session, tokenizer, config, line)
        print(line.replace("\t", " | "), "->", json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
