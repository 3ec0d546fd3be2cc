"""Asks a model of named entities that server_token_cls.py serves.

python client_token_cls.py                                                      two built-in examples
python client_token_cls.py --text "王芳在腾讯公司工作，家住深圳。"
python client_token_cls.py --dataset msra_ner --data_dir DIR                    F1 on DIR/msra_ner/test.tsv
"""

import sys

try:
    from ernie_client import main
except ImportError as e:
    sys.exit(f"client_token_cls.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")


def read_answers(result):
    """Answers as the predictor gives them. `pos` of the result has start and end, in characters, end exclusive."""
    return [
        [
            {"entity": e["entity"], "label": e["label"], "start": start, "end": end, "confidence": e["confidence"]}
            for e in entities
            for start, end in [e["pos"]]
        ]
        for entities in result["value"]
    ]


if __name__ == "__main__":
    main("token_cls", "ernie_ner", read_answers, __doc__)
