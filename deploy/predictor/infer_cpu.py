"""Answers texts on the CPU with a fine-tuned ERNIE model: classification, named entities, reading comprehension.

python infer_cpu.py --model_path best_models/tnews/export                        two built-in examples
python infer_cpu.py --model_path best_models/tnews/export --input texts.txt --output answers.jsonl
cat texts.txt | python infer_cpu.py --model_path best_models/tnews/export --input -

Input is one text a line (pairs, and question and context, with a tab between them), or JSON lines; output is one JSON
answer a line. README.md describes both.
"""

import sys

try:
    from ernie_predictor.commandline import answer, new_parser, open_input, parse, read_items, run
except ImportError as e:
    sys.exit(f"infer_cpu.py: error: {e}; pip install -r requirements_cpu.txt")
from ernie_predictor.cpu import BACKENDS, PRECISIONS


def main():
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--backend", choices=("auto", *BACKENDS), default="auto", help="auto (default): the fastest that is installed")
    add(
        "--precision_mode",
        choices=PRECISIONS,
        default="fp32",
        help="fp32 (default); bf16: the FP32 model in bfloat16, where the processor has it; int8: the folder's INT8 "
        "model, or else its FP32 one quantized",
    )
    add(
        "--calibration",
        metavar="FILE",
        help="typical texts, as --input takes them: some hundreds tell the scales of an FP32 model that becomes INT8, "
        "which makes it faster",
    )
    args = parse(parser)
    with open_input("--calibration", args.calibration) as texts:

        def calibration(task):
            return read_items(texts, args.calibration, task, args.on_error)

        answer(
            args,
            backend=args.backend,
            precision_mode=args.precision_mode,
            calibration=calibration if texts else None,
        )


if __name__ == "__main__":
    run(main, "requirements_cpu.txt")
