"""Runs a fine-tuned ERNIE model on millions of texts with Ray Data, on one machine or a cluster.

python infer_ray.py --model_path best_models/tnews/export --input texts.jsonl --output predictions
python infer_ray.py --model_path best_models/tnews/export --input "s3://bucket/texts/*.parquet" --output s3://bucket/out
python infer_ray.py --model_path /nfs/tnews --input /nfs/texts --output /nfs/predictions --address auto    on a cluster

Input is Parquet, JSON lines or text: files, folders or patterns. Rows keep their columns. A job that was killed resumes
with the same command. README_ray.md describes it.
"""

import inspect
import logging
import os
import socket
import sys
import time
from pathlib import Path

try:
    import ray_blocks as blocks
    from ernie_predictor import TASKS, ErniePredictor, PredictorError, UsageError, load_task
    from ernie_predictor.commandline import add_model_flags, bare_parser, positive, run
    from tqdm import tqdm
except ImportError as e:
    sys.exit(f"infer_ray.py: error: {e}; pip install -r requirements_ray.txt")
from ernie_predictor import cpu, gpu
from ernie_predictor.errors import one_line
from ernie_predictor.files import file_hash
from ernie_predictor.machine import usable_cores
from ernie_predictor.predictor import check_exported, open_folder, precision_of

COLUMNS = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.text_names()))
# Flags and files that decide what the predictions are and how they are written.
SETTINGS = ("precision_mode", "on_error", "answer_prefix", "block_size", "output_format")
MODEL = ("config.json", "vocab.txt", "tokenizer_config.json", "model.onnx", "model.pdmodel", "model.pdiparams",
         "int8.pdmodel", "int8.pdiparams")  # fmt: skip


def parse_args():
    parser = bare_parser(__doc__, "%(prog)s --model_path DIR --input NAME ... --output DIR [...]")
    add_model_flags(parser)
    add = parser.add_argument_group("Texts and predictions").add_argument
    add("--input", metavar="NAME", nargs="+", required=True, help="files, folders, patterns with *, URIs (s3://...)")
    add("--output", metavar="DIR", required=True, help="folder or URI for the predictions, one file per block")
    add("--output_format", choices=("parquet", "jsonl"), help="default: parquet for Parquet, else jsonl")
    for name in COLUMNS:
        add(f"--{name}_column", metavar="NAME", help=f"column with the {name} (default: {name})")
    add("--answer_prefix", metavar="TEXT", default="", help="put before the names of the new columns")
    add("--on_error", choices=("stop", "column"), default="stop",
        help="at a broken row stop, or keep the row, with the reason in a column `error`")  # fmt: skip
    add("--block_size", metavar="KIB", type=positive, default=1024,
        help="KiB of text per block, which is predicted, written and resumed as a whole")  # fmt: skip
    add = parser.add_argument_group("Speed").add_argument
    add("--device", choices=("cpu", "gpu"), default="cpu", help="gpu: one GPU per actor")
    add("--backend", default="auto", help="as in infer_cpu.py and infer_gpu.py; auto (default): the fastest installed")
    add("--precision_mode", default="auto", help="as there; auto (default): what the folder holds")
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per batch")
    add("--num_threads", metavar="N", type=positive, help="cores per actor (default: 4, or those of a smaller node)")
    add("--actors", metavar="N", type=positive, help="processes with one model each (default: as many as fit)")
    add("--cache_dir", metavar="DIR", help="for files made from the model once (default: ~/.cache/ernie_predictor)")
    add("--address", metavar="ADDRESS", default=os.environ.get("RAY_ADDRESS"),
        help="of a Ray cluster; auto: the one that this machine is part of (default: RAY_ADDRESS, else no cluster)",
    )  # fmt: skip
    args = parser.parse_args()
    device = {"cpu": cpu, "gpu": gpu}[args.device]
    for name, choices in (("backend", device.BACKENDS), ("precision_mode", device.PRECISIONS)):
        if getattr(args, name) not in ("auto", *choices):
            parser.error(
                f"--{name} {getattr(args, name)}: on a {args.device.upper()} choose auto, {', '.join(choices)}"
            )
    return args


def text_columns(args, task):
    """The columns of the input that hold the task's texts."""
    names = task.text_names()
    given = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    for name, column in given.items():
        if column and name not in names:
            raise UsageError(f"--{name}_column: this is a {task.name} model, which reads {' and '.join(names)}")
    required = [name for name in names if name == task.first or task.second_required or given[name]]
    return blocks.Columns([given[name] or name for name in names], len(required))


def hash_model(folder):
    """{name: the hash of its content, or None where it is not there}, of the files of MODEL."""
    paths = [Path(folder, name) for name in MODEL]
    return {path.name: file_hash(path) if path.is_file() else None for path in paths}


class BlockPredictor:
    """A Ray actor. It opens the model once; each call predicts one block and writes its file.

    Args:
        hashes: of `hash_model`, when the job began.
    """

    def __init__(self, args, hashes, columns, fields, schema, source, output):
        self.args, self.columns, self.fields, self.schema = args, columns, fields, schema
        self.source, self.output, self.fault = source, output, None
        names = inspect.signature(open_folder).parameters
        options = {name: getattr(args, name) for name in names if hasattr(args, name)}
        try:
            self.predictor = ErniePredictor(args.model_path, **options)
            # After it was opened: what is replaced from now on is not read.
            for name, value in hash_model(args.model_path).items():
                if value != hashes[name]:
                    raise PredictorError(
                        f"{os.path.join(args.model_path, name)} on {socket.gethostname()} is not the file that this "
                        "job began with; every node needs the same model, and another model another --output"
                    )
        except (PredictorError, ImportError, OSError) as e:  # raised here, it would be lost in Ray's traceback
            self.fault = e

    def __call__(self, batch):
        block = blocks.Block(*(batch[name][0] for name in blocks.Block._fields))
        texts, fault, status = 0, "", 0
        try:
            if self.fault:
                raise self.fault
            texts = self.predict(block)
        except (PredictorError, ImportError, OSError) as e:
            fault, status = str(e), 2 if isinstance(e, UsageError) else 1
        return {"texts": [texts], "fault": [fault], "status": [status]}

    def predict(self, block):
        """Writes the predictions of a block; returns how many rows it has."""
        args, task = self.args, self.predictor.task
        truncated = task.truncated
        table, rows = blocks.read_block(self.source, block, task, self.columns, args.output_format)
        pairs, errors = [], []
        for index, (_, item, error) in enumerate(rows):
            try:
                if error is None:
                    pairs.append(task.check(item))
            except PredictorError as e:
                error = str(e)
            if error and args.on_error == "stop":
                place = blocks.place_of(self.source, block, index)
                raise PredictorError(f"{place}: {error} (--on_error column keeps such rows)")
            errors.append(error)
        predicted = iter(self.predictor.predict(pairs))  # of the rows without an error, in their order
        answers = [{"error": error} if error else next(predicted) for error in errors]
        try:
            content = blocks.render(args.output_format, table, rows, answers, self.columns, self.fields, self.schema)
        except blocks.RowError as e:
            raise PredictorError(f"{blocks.place_of(self.source, block, e.index)}: {e}") from None
        self.output.write(block, content, (len(rows), len(rows) - len(pairs), task.truncated - truncated))
        return len(rows)


def start_ray(args):
    """Connects to a cluster, or starts Ray on this machine; returns how many actors there are to be."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not args.address:
        # What keeps Ray on 127.0.0.1, on Linux as well; _node_ip_address="127.0.0.1" does not (Ray 2.60).
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    try:
        if args.address:
            host, _, port = args.address.rpartition(":")
            if host and "/" not in host:  # Ray tries for minutes to reach an address at which nothing listens
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            ray.init(args.address, logging_level="error")
        else:  # the object store is small, since texts do not pass through it
            ray.init("local", num_cpus=usable_cores(), include_dashboard=False, object_store_memory=2**27,
                     logging_level="error")  # fmt: skip
    except (OSError, ValueError) as e:
        raise PredictorError(
            f"Ray {'at ' + args.address if args.address else 'on this machine'}: {one_line(e)}"
        ) from None
    unit = "GPU" if args.device == "gpu" else "CPU"
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get(unit, 0) >= 1]
    args.num_threads = args.num_threads or int(min([4, *(node["CPU"] for node in nodes)]))
    needed = {"CPU": args.num_threads} | ({"GPU": 1} if unit == "GPU" else {})
    room = sum(min(int(node[name] // count) for name, count in needed.items()) for node in nodes)
    if room < (args.actors or 1):
        each = " and ".join(f"{count} {name}" for name, count in needed.items())
        raise PredictorError(f"Ray has room for {room} actors of {each}; {args.actors or 1} are asked for")
    return args.actors or room


def predict_blocks(args, todo, bar, *arguments):
    """Has actors predict blocks.

    Raises:
        PredictorError: what stopped an actor; what was done before stays done.
    """
    actors = min(start_ray(args), len(todo))
    import ray.data  # after start_ray has set Ray's environment

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it has a line for each data set, and bars of its own
    ray.data.DataContext.get_current().enable_progress_bars = False
    # The rows of this data set are blocks of the input. An actor that dies is started again, and its block repeated.
    results = ray.data.from_items([block._asdict() for block in todo], override_num_blocks=len(todo)).map_batches(
        BlockPredictor,
        fn_constructor_args=(args, *arguments),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=args.num_threads,
        num_gpus=1 if args.device == "gpu" else None,
    )
    texts, start = 0, time.monotonic()
    for result in results.iter_rows():
        if result["fault"]:
            raise (UsageError if result["status"] == 2 else PredictorError)(result["fault"])
        texts += result["texts"]
        bar.set_postfix_str(f"{texts / (time.monotonic() - start):,.0f} texts/s", refresh=False)
        bar.update()


def main():
    args = parse_args()
    check_exported(args.model_path)
    args.model_path = os.path.abspath(args.model_path)
    args.cache_dir = args.cache_dir and os.path.abspath(args.cache_dir)
    hashes = hash_model(args.model_path)  # before anything of it is read
    if args.precision_mode == "auto":
        args.precision_mode = precision_of(args.model_path)
    task = load_task(
        args.model_path, args.task_name, args.max_seq_length, tokenizer=args.tokenizer, doc_stride=args.doc_stride
    )
    columns = text_columns(args, task)

    # Find and split the input.
    source, files = blocks.find_files(args.input)
    is_parquet = files[0].path.endswith(".parquet")
    args.output_format = args.output_format or ("parquet" if is_parquet else "jsonl")
    plan = blocks.split_files(source, files, args.block_size * 2**10, columns)
    fields, schema = blocks.answer_fields(task, args.on_error == "column", args.answer_prefix), None
    if plan:
        table, rows = blocks.read_block(source, plan[0], task, columns, args.output_format)
        blocks.check_names(table, rows, fields)
        if args.output_format == "parquet" and table is None:
            try:
                schema = blocks.infer_schema(rows, columns)
            except blocks.RowError as e:
                raise PredictorError(f"{blocks.place_of(source, plan[0], e.index)}: {e}") from None

    # Start the job, or resume it.
    output = blocks.OutputFolder(args.output, args.output_format)
    inside = [name for name in args.input if f"{output.path}/".startswith(f"{blocks.open_path(name)[1]}/")]
    if inside or any(file.path.startswith(f"{output.path}/") for file in files):
        raise UsageError(f"--output {args.output} and --input overlap; name another folder")
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings |= {"columns": columns.names, "max_seq_length": task.max_seq_length, "schema": schema and str(schema)}
    settings |= {"doc_stride": task.params.get("doc_stride"), **hashes}
    output.start({"settings": settings, "files": {file.path: blocks.state_of(file) for file in files}})
    todo, say = output.missing(plan), f"{os.path.basename(sys.argv[0])}:"
    done = len(plan) - len(todo)
    if done:
        print(f"{say} {done} of {len(plan)} blocks are done already", file=sys.stderr)
    if todo:
        with tqdm(total=len(plan), initial=done, unit=" blocks", disable=not sys.stderr.isatty()) as bar:
            predict_blocks(args, todo, bar, hashes, columns, fields, schema, source, output)

    # Count what all runs of this job have done.
    if lost := output.missing(plan):
        raise PredictorError(f"{args.output} lacks {len(lost)} files that other nodes have written; is it shared?")
    texts, errors, task.truncated = output.finish(plan)
    print(f"{say} {texts:,} texts ({errors:,} with an error); files in {args.output}: {len(plan):,}", file=sys.stderr)
    if summary := task.truncation_summary():
        print(f"{say} {summary}", file=sys.stderr)


if __name__ == "__main__":
    run(main, "requirements_ray.txt")
