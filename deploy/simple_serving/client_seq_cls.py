"""Asks a classifier that server_seq_cls.py serves.

python client_seq_cls.py                                                        two built-in examples
python client_seq_cls.py --text "怎么开通信用卡" --text_pair "我要办理信用卡"
python client_seq_cls.py --dataset afqmc --data_dir DIR                         accuracy on DIR/afqmc/dev.json
"""

import sys

try:
    from ernie_client import main
except ImportError as e:
    sys.exit(f"client_seq_cls.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")


def read_answers(result):
    """Answers as the predictor gives them. `label` of the result has class numbers, `label_name` the names."""
    return [{"label": name, "confidence": c} for name, c in zip(result["label_name"], result["confidence"])]


if __name__ == "__main__":
    main("seq_cls", "ernie_cls", read_answers, __doc__)
