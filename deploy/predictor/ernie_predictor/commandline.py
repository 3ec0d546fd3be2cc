"""What infer_cpu.py and infer_gpu.py share: flags, input and output, --benchmark, and how they end.

Input is one text per line (pairs, and question and context, with a tab between them), JSON lines, or CSV and TSV with a
header; output is one JSON value per line. README.md describes both.
"""

import argparse
import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import statistics
import sys
import time

from tqdm import tqdm

from .answers import marked_up
from .errors import PredictorError, UsageError, one_line
from .inputs import columns_of, read_items
from .machine import open_standard_streams
from .predictor import ErniePredictor
from .tasks import TASKS
from .tokenizer import TOKENIZERS

LATENCY_TEXTS = 200  # texts of --benchmark that are answered one by one
FEWEST_TEXTS = 100  # of --benchmark: the figures of fewer are noise


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default to each help text that does not name it, if there is one."""

    def __init__(self, prog):
        width = min(max(shutil.get_terminal_size().columns, 80), 110)
        super().__init__(prog, max_help_position=27, width=width)

    def _get_help_string(self, action):
        text, default = action.help or "", action.default
        if default in (None, "", False, -1) or action.nargs == 0 or "default" in text:
            return text
        if isinstance(default, list):
            default = " ".join(map(str, default))
        return f"{text} (default: {'on' if default is True else getattr(default, 'value', default)})".lstrip()


def bare_parser(description, usage):
    """A parser that says in one message what is wrong, without the list of all flags."""
    parser = argparse.ArgumentParser(description=description, usage=usage, formatter_class=HelpFormatter)
    parser.error = lambda message: stop(message, 2)
    return parser


def add_model_flags(parser):
    add = parser.add_argument_group("Model").add_argument
    add("--model_path", metavar="DIR", required=True, help="folder that run_*.py --do_export or compress_*.py wrote")
    add("--task_name", choices=TASKS, help="the model's task (default: told from its config.json)")
    add("--max_seq_length", metavar="N", type=positive, help="at most N tokens per text (default: as in training)")
    add("--doc_stride", metavar="N", type=positive, help="tokens from window to window of a long text or context "
        "(default: as in training); larger is faster")  # fmt: skip
    add("--tokenizer", choices=TOKENIZERS, default=TOKENIZERS[0], help="the ids are the same")


def new_parser(description):
    """A parser with the flags that do not depend on what the model runs on."""
    parser = bare_parser(description, "%(prog)s --model_path DIR [--input FILE] [--output FILE] [...]")
    add_model_flags(parser)
    add = parser.add_argument_group("Texts and answers").add_argument
    add("--input", metavar="FILE", help="- for standard input (default: two built-in examples)")
    add("--output", metavar="FILE", help="written when all lines are answered (default: standard output)")
    add("--text", "--question", metavar="TEXT", help="one text, or question, in place of --input")
    add("--text_pair", "--context", metavar="TEXT", help="its second text, or the question's context")
    add("--text_column", "--question_column", metavar="NAME", help="column of CSV and TSV, or field of JSON lines")
    add("--text_pair_column", "--context_column", metavar="NAME", help="that of the second text")
    add("--on_error", choices=("stop", "skip"), default="stop", help="at a broken line stop, or report and skip it")
    add = parser.add_argument_group("Speed").add_argument
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per batch; with 1 each line is answered "
        "before the next is read")  # fmt: skip
    add("--num_threads", metavar="N", type=positive, help="for model and tokenizer (default: the usable cores)")
    add("--cache_dir", metavar="DIR", help="for files made from the model once (default: ~/.cache/ernie_predictor)")
    add("--benchmark", metavar="FILE", nargs="?", const=True, help="print speed instead of answers: of the model as it "
        "is named, on 100 texts or more of --input; or of FILE, a dev file of training, the speed and score of every "
        "engine and precision")  # fmt: skip
    return parser


def parse(parser):
    args = parser.parse_args()
    if args.text is not None and args.input is not None:
        parser.error("--text is one text, --input is a file: leave one of them out")
    if args.text is None and args.text_pair is not None:
        parser.error("--text_pair needs --text (--context needs --question)")
    if (args.text_column or args.text_pair_column) and not (args.input or getattr(args, "calibration", None)):
        parser.error("--text_column and --text_pair_column are for --input FILE")
    if args.input == "-" and getattr(args, "calibration", None) == "-":
        parser.error("--calibration and --input cannot both read standard input: name a file for one of them")
    if isinstance(args.benchmark, str) and (args.input is not None or args.text is not None):
        parser.error(f"--benchmark {args.benchmark} has the texts: leave --input and --text out")
    if args.benchmark and args.output:
        parser.error("--benchmark prints figures, no answers: leave --output out")
    if args.output and args.input not in (None, "-") and os.path.exists(args.output):
        with contextlib.suppress(OSError):
            if os.path.samefile(args.input, args.output):
                parser.error(f"--output {args.output} is the input file")
    return args


def answer(args, **options):
    """Answers args.input with the model of args.model_path, or prints its speed.

    Args:
        args: of `parse`.
        options: further arguments of `ErniePredictor`.
    """
    with open_input("--input", args.input) as source, open_output(args.output) as sink:
        predictor = ErniePredictor(
            args.model_path,
            args.task_name,
            num_threads=args.num_threads,
            batch_size=args.batch_size,
            max_seq_length=args.max_seq_length,
            cache_dir=args.cache_dir,
            tokenizer=args.tokenizer,
            doc_stride=args.doc_stride,
            **options,
        )
        predictor.warned = True  # how many texts are truncated is said once, at the end
        task = predictor.task
        task.truncated = 0  # those of --calibration do not count
        if source is not None:
            items = read_items(source, args.input, task, args.on_error, columns_of(args, task))
        elif args.text is not None:
            items = [item_of_flags(args, task)]
        else:
            items = task.pair_examples if task.pair_examples and task.second_required else task.examples
        if args.benchmark:
            given = source is not None or args.text is not None
            benchmark(predictor, list(items) if given else items * max(8 * args.batch_size, FEWEST_TEXTS))
            return
        if source is None and args.text is None and args.output is None:
            for item, answer in zip(items, predictor.predict(items)):
                if sys.stdout.isatty() and isinstance(answer, list):  # entities
                    print(marked_up(item, answer))
                else:
                    print(item if isinstance(item, str) else " | ".join(item), "->", to_json(answer))
        else:
            write_answers(predictor, items, sink)
        if summary := task.truncation_summary():
            print(f"{os.path.basename(sys.argv[0])}: {summary}", file=sys.stderr)


def item_of_flags(args, task):
    """--text and --text_pair, checked."""
    try:
        return task.check(args.text if args.text_pair is None else (args.text, args.text_pair))
    except PredictorError as e:
        raise UsageError(f"--text: {e}") from None


def existing_file(text):
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return text


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def whole_number(text):
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 0 or more")
    return int(text)


def open_input(flag, name):
    """A file of bytes, standard input for "-", or None where there is no input."""
    if name is None:
        return contextlib.nullcontext()
    if name == "-":
        if sys.stdin is None:
            raise PredictorError(f"standard input is closed: name a file with {flag}")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return open(name, "rb")
    except OSError as e:
        raise PredictorError(f"{flag} {name}: {e.strerror}") from e


@contextlib.contextmanager
def open_output(name):
    """Standard output for None, else a file, which gets its name when all is done. After an error it is `<name>.part`.

    A link is written through: what it points to is replaced, and the link stays. Pipes and devices are written in
    place, and so is a file that is open already (`/dev/stdout`).
    """
    if name is None:
        if sys.stdout is None:
            raise PredictorError("standard output is closed: name a file with --output")
        sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    try:
        target, descriptor = follow_links(name)
        part = f"{target}.{os.getpid()}-{secrets.token_hex(2)}.part"  # its own, should two runs write to one file
        if descriptor is not None:
            part = None
            target = os.dup(descriptor)
        elif os.path.exists(target) and not os.path.isfile(target):
            part = None
        sink = open(part or target, "w", encoding="utf-8", newline="\n")  # noqa: SIM115  closed below
    except OSError as e:
        raise PredictorError(f"--output {name}: {e.strerror}") from e
    try:
        with sink:
            yield sink
    except BaseException:
        # Answers that came before an error are kept, under a name that says so.
        if part and os.path.getsize(part) == 0:
            os.remove(part)
        elif part:
            os.replace(part, f"{target}.part")
        raise
    if part:
        os.replace(part, target)


def follow_links(name):
    """Where a chain of links ends: (path, None), or (path, n) for the open file n of this process."""
    for _ in range(40):
        standard = re.fullmatch(r"/dev/std(in|out|err)", name)
        number = re.fullmatch(rf"(?:/dev|/proc/(?:self|{os.getpid()}))/fd/(\d+)", name)
        if standard:
            return name, ("in", "out", "err").index(standard[1])
        if number:
            return name, int(number[1])
        if not os.path.islink(name):
            break
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return name, None


def write_answers(predictor, items, sink):
    """Writes one answer per line as they come. A terminal shows progress, and in the end how many they were."""
    hidden = sink.isatty() or not sys.stderr.isatty()
    columns, rows = (0, 0) if hidden else os.get_terminal_size(sys.stderr.fileno())
    start = time.perf_counter()
    # On a terminal that does not know its size, as containers have, tqdm would show nothing.
    with tqdm(unit=" texts", disable=hidden, leave=False, ncols=columns or 80, nrows=rows or 24) as bar:
        for answer in predictor.predict_stream(items):
            sink.write(to_json(answer) + "\n")
            sink.flush()
            bar.update()
    if not hidden:
        rate = bar.n / (time.perf_counter() - start)
        print(f"{os.path.basename(sys.argv[0])}: {bar.n:,} texts, {rate:,.0f} texts/s", file=sys.stderr)


def to_json(answer):
    return json.dumps(answer, ensure_ascii=False, allow_nan=False)


def benchmark(predictor, items):
    """Prints texts per second of a whole job, and latencies of single texts."""
    if len(items) < FEWEST_TEXTS:
        raise PredictorError(f"--benchmark: the input holds {len(items)} texts; {FEWEST_TEXTS} or more are needed")
    pairs = [predictor.task.check(item) for item in items]
    # The first batches are slower: threads, memory, kernels for each length.
    predictor.predict(pairs[: max(4 * predictor.batch_size, FEWEST_TEXTS)])
    start = time.perf_counter()
    predictor.predict(pairs)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    for chunk in predictor.chunks(pairs):
        predictor.task.tokenize(chunk)
    tokenizing = time.perf_counter() - start
    model = predictor.model
    print(f"{model.path}: {model}")
    print(f"{len(pairs):,} texts, batch size {predictor.batch_size}")
    print(f"QPS: {len(pairs) / seconds:.1f} texts/s from text to answer ({seconds:.2f} s)")
    print(f"     {len(pairs) / tokenizing:.1f} texts/s tokenizing alone ({100 * tokenizing / seconds:.1f}% of it)")
    # Single texts, spread over the input, so that it need not be shuffled.
    singles = [pairs[i] for i in range(0, len(pairs), max(len(pairs) // LATENCY_TEXTS, 1))][:LATENCY_TEXTS]
    for what, call in (("from text to answer", predictor.predict), ("tokenizing alone", predictor.task.tokenize)):
        times = []
        for pair in singles[:10]:
            call([pair])  # warm up
        for pair in singles:
            start = time.perf_counter()
            call([pair])
            times.append(1000 * (time.perf_counter() - start))
        p50, p90, p99 = percentiles(times)
        print(f"Latency, {what}: p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms ({len(times)} single texts)")


def percentiles(times):
    """The 50th, 90th and 99th percentile."""
    if len(times) == 1:
        return times * 3
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[89], cuts[98]


def stop(message, status):
    print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr)
    sys.exit(status)


def run(main, requirements):
    """Calls main(); what a user can fix ends in one message and an exit status."""
    open_standard_streams()
    try:
        main()
        sys.stdout.flush()
    except PredictorError as e:
        stop(e, 2 if isinstance(e, UsageError) else 1)
    except ImportError as e:
        # Relative to the user's working directory, not to the script's folder.
        stop(f"{e}; pip install -r {os.path.join(os.path.dirname(sys.argv[0]), requirements)}", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the answers has closed the pipe; Python would report that again while it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as e:
        stop(f"{e.filename or 'input or output'}: {e.strerror or one_line(e)}", 1)
