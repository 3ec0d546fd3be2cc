"""Runs a fine-tuned ERNIE model on texts, on a GPU: classification, named entities, reading comprehension.

python infer_gpu.py --model_path best_models/tnews/export                        two built-in examples
python infer_gpu.py --model_path best_models/tnews/export --precision_mode fp16 --input texts.txt --output answers.jsonl
cat texts.txt | python infer_gpu.py --model_path best_models/tnews/export --input -

Input is one text per line (pairs, and question and context, with a tab between them), JSON lines, or CSV and TSV with a
header; output is one JSON value per line. README.md describes both.
"""

import contextlib
import sys

try:
    from ernie_predictor.commandline import answer, new_parser, parse, run, whole_number
except ImportError as e:
    sys.exit(f"infer_gpu.py: error: {e}; pip install -r requirements_gpu.txt")
from ernie_predictor.gpu import BACKENDS, DEVICES, PRECISIONS


def main():
    parser = new_parser(__doc__)
    add = parser.add_argument_group("GPU").add_argument
    add("--device", choices=DEVICES, default="gpu", help="gpu (default): NVIDIA; xpu: Kunlun; npu: Ascend")
    add("--device_id", metavar="N", type=whole_number, default=0, help="which device, from 0")
    add("--backend", choices=("auto", *BACKENDS), default="auto", help="auto (default): the fastest one installed")
    add("--precision_mode", choices=("auto", *PRECISIONS), default="auto", help="auto (default): what the folder "
        "holds; fp16: FP32 in float16; int8: with TensorRT")  # fmt: skip
    args = parse(parser)
    if isinstance(args.benchmark, str):
        parser.error("--benchmark FILE compares engines of the CPU: name the texts with --input")
    with contextlib.suppress(ImportError):
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # what it can't start is said in one message instead
    answer(
        args,
        backend=args.backend,
        precision_mode=args.precision_mode,
        device=args.device,
        device_id=args.device_id,
    )


if __name__ == "__main__":
    run(main, "requirements_gpu.txt")
