"""Sends texts to a named entity recognition model in Triton, over gRPC.

python token_cls_grpc_client.py                                                 two built-in examples
python token_cls_grpc_client.py --text "王芳在腾讯公司工作。"
python token_cls_grpc_client.py --dataset msra_ner --data_dir DIR               F1 on DIR/msra_ner/test.tsv
"""

import sys

try:
    from grpc_client import main
except ImportError as e:
    sys.exit(f"token_cls_grpc_client.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")

if __name__ == "__main__":
    main("token_cls", "ernie_tokencls", __doc__)
