"""Sends questions to a reading comprehension model in Triton, over gRPC.

python qa_grpc_client.py                                                        two built-in examples
python qa_grpc_client.py --question "谁发明了它？" --context "电话是贝尔在1876年发明的。"
python qa_grpc_client.py --dataset cmrc2018 --data_dir DIR                      scores on DIR/cmrc2018/dev.json
"""

import sys

try:
    from grpc_client import main
except ImportError as e:
    sys.exit(f"qa_grpc_client.py: error: {e}; pip install -r requirements_client.txt, and copy ../predictor")

if __name__ == "__main__":
    main("qa", "ernie_qa", __doc__)
