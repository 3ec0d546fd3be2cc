"""Asks a model of reading comprehension that server_qa.py serves.

python client_qa.py                                                             two built-in examples
python client_qa.py --question "谁发明了它？" --context "电话是贝尔在1876年发明的。"
python client_qa.py --dataset cmrc2018 --data_dir DIR                           scores on DIR/cmrc2018/dev.json
"""

import sys

try:
    from ernie_client import main
except ImportError as e:
    sys.exit(f"client_qa.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")

FIELDS = ("answer", "start", "end", "confidence", "n_best")


def read_answers(result):
    """Answers as the predictor gives them; the result has a list of each field."""
    return [dict(zip(FIELDS, values)) for values in zip(*(result[field] for field in FIELDS))]


if __name__ == "__main__":
    main("qa", "ernie_qa", read_answers, __doc__)
