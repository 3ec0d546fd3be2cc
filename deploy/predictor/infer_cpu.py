"""Runs a fine-tuned ERNIE model on texts, on the CPU: classification, named entities, reading comprehension.

python infer_cpu.py --model_path best_models/tnews/export                        two built-in examples
python infer_cpu.py --model_path best_models/tnews/export --input texts.txt --output answers.jsonl
cat texts.txt | python infer_cpu.py --model_path best_models/tnews/export --input -

Input is one text per line (pairs, and question and context, with a tab between them), JSON lines, or CSV and TSV with a
header; output is one JSON value per line. README.md describes both.
"""

import sys

try:
    from ernie_predictor.commandline import answer, new_parser, open_input, parse, run
    from ernie_predictor.inputs import columns_of, read_items
except ImportError as e:
    sys.exit(f"infer_cpu.py: error: {e}; pip install -r requirements_cpu.txt")
from ernie_predictor.cpu import BACKENDS, PRECISIONS
from ernie_predictor.side_by_side import side_by_side


def main():
    parser = new_parser(__doc__)
    add = parser.add_argument_group("CPU").add_argument
    add("--backend", choices=("auto", *BACKENDS), default="auto", help="auto (default): the fastest one installed")
    add(
        "--precision_mode",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="auto (default): what the folder holds; bf16: FP32 in bfloat16; int8: an FP32 model is quantized",
    )
    add(
        "--calibration",
        metavar="FILE",
        help="some hundred typical texts, to quantize an FP32 model to INT8",
    )
    args = parse(parser)
    if isinstance(args.benchmark, str):
        names = ("task_name", "num_threads", "batch_size", "max_seq_length", "cache_dir", "tokenizer", "doc_stride")
        options = {name: getattr(args, name) for name in names}
        side_by_side(args.model_path, args.benchmark, args.backend, args.precision_mode, **options)
        return
    with open_input("--calibration", args.calibration) as texts:

        def calibration(task):
            return read_items(texts, args.calibration, task, args.on_error, columns_of(args, task))

        answer(
            args,
            backend=args.backend,
            precision_mode=args.precision_mode,
            calibration=calibration if texts else None,
        )


if __name__ == "__main__":
    run(main, "requirements_cpu.txt")
