"""Sends texts to a classifier in Triton, over gRPC.

python seq_cls_grpc_client.py                                                   two built-in examples
python seq_cls_grpc_client.py --text "怎么开通信用卡" --text_pair "我要办理信用卡"
python seq_cls_grpc_client.py --dataset tnews --data_dir DIR                    accuracy on DIR/tnews/dev.json
"""

import sys

try:
    from grpc_client import main
except ImportError as e:
    sys.exit(f"seq_cls_grpc_client.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")

if __name__ == "__main__":
    main("seq_cls", "ernie_seqcls", __doc__)
