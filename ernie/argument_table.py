"""The arguments of the six scripts, a row each: what --help says, which values fit, and which scripts take it.

Type and default are those of the dataclass that an argument fills: PaddleNLP's `TrainingArguments` and
`CompressionArguments`, and the project's own below. PaddleNLP has fifty arguments more. Here they would do nothing,
or fail after hours: they are refused, and keep their defaults.
"""

import dataclasses
import fnmatch
import itertools
import math
from dataclasses import dataclass, field

from paddlenlp.trainer import CompressionArguments as PaddleCompressionArguments

from ernie.errors import nearest
from ernie.tasks import TASKS


@dataclass
class ModelArguments:
    model_name_or_path: str
    config: str = None
    export_model_dir: str = None
    verbose: bool = False


@dataclass
class DataArguments:
    dataset: str
    data_dir: str = None
    max_seq_length: int = 128
    dynamic_max_length: list[int] = None
    doc_stride: int = 128
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 50
    use_fast_tokenizer: bool = True
    group_by_length: bool = True


@dataclass
class CompressionArguments(PaddleCompressionArguments):
    """PaddleNLP's, with the defaults that it sets only later, and a limit for the drop of the score."""

    strategy: str = "dynabert+ptq"
    width_mult_list: list[str] = field(default_factory=lambda: ["0.75"])
    algo_list: list[str] = field(default_factory=lambda: ["mse"])  # benchmarks/README.md: KL loses 1.4 points more
    batch_size_list: list[int] = field(default_factory=lambda: [4, 8, 16])
    batch_num_list: list[int] = field(default_factory=lambda: [1])
    max_drop: float = 0.5


INHERITED = object()  # the default of the dataclass
RUN, COMPRESS = "run_*", "compress_*"


@dataclass(frozen=True)
class Row:
    """One argument, as some of the scripts take it."""

    name: str
    help: str = ""  # without it, --help only names the argument; configs/README.md describes all
    scripts: str = "*"  # that take it
    least: float | None = None
    below: float = math.inf
    choices: tuple = ()
    default: object = INHERITED
    metavar: str = ""
    instead_of: str = ""  # those of PaddleNLP's that have no use here, and mean nearly this

    def taken_by(self, script):
        return any(fnmatch.fnmatch(script, f"{pattern}.py") for pattern in self.scripts.split())

    def problem(self, value):
        """What is wrong with a value, or None."""
        if self.choices and value not in self.choices:
            return f"none of {', '.join(self.choices)}{nearest(value, self.choices)}"
        if self.least is not None and not self.least <= value < self.below:
            limit = "finite" if self.below == math.inf else f"below {self.below}"
            return f"must be {self.least} or more" + (f", and {limit}" if value > 0 else "")
        return None


def reading(name, help):
    """The row of one of `Task.defaults`: how a task cuts long texts and chooses answers."""
    tasks = [task for task in TASKS.values() if name in task.defaults]
    return Row(name, help, " ".join(f"*_{task.name}" for task in tasks), least=1)


# What --strategy may be: pruning, then one kind of quantization of matrix products, then that of tables.
STRATEGIES = tuple(
    "+".join(filter(None, steps))
    for steps in itertools.product(("", "dynabert"), ("", "ptq", "qat"), ("", "embeddings"))
    if any(steps)
)
ALGORITHMS = ("mse", "KL", "hist", "avg", "abs_max", "min_max", "emd")
WHEN = ("no", "steps", "epoch")
ACTIVATION_RANGES = ("abs_max", "range_abs_max", "moving_average_abs_max")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial")

# {title in --help: rows}. In a text, {names} and so on are the task's.
TABLE = {
    "Model and data": (
        Row("model_name_or_path", "such as ernie-3.0-nano-zh, or a folder", RUN, metavar="MODEL"),
        Row("model_name_or_path", "folder that run_*.py fine-tuned", COMPRESS, metavar="MODEL"),
        Row("dataset", "{names}; or your own, with --data_dir", metavar="NAME"),
        Row("data_dir", "has <dataset>/{{train,dev,test}}.{suffix} (default: hub)"),
        Row("output_dir", "results go to DIR/<dataset>", RUN),
        Row("output_dir", "for the variants (default: --model_name_or_path)", COMPRESS),
        Row("export_model_dir", "for DIR/<dataset>/export (default: --output_dir)", RUN),
        Row("config", "hyperparameters in YAML; the command line wins", metavar="FILE"),
        Row("max_seq_length", "tokens per {part} (default: the model's own, or 128)", least=8),
        reading("doc_stride", "tokens from window to window"),
        reading("max_query_length", "longer questions are truncated"),
        reading("n_best_size", "answers per question"),
        reading("max_answer_length", "at most N tokens per answer"),
    ),
    "Steps": (
        Row("do_train", "fine-tune on the train split", RUN),
        Row("do_eval", "score the dev split, keep the best checkpoint", RUN),
        Row("do_predict", "predict the test split", RUN),
        Row("do_export", "write a Paddle and an ONNX model", RUN),
    ),
    "Compression": (
        Row(
            "strategy",
            "dynabert (narrower layers, trained), ptq (INT8 by calibration), qat (INT8 by training), embeddings "
            "(INT8 tables), or several joined by +",
            COMPRESS,
            choices=STRATEGIES,
            instead_of="prune_embeddings",
        ),
        Row("width_mult_list", "dynabert: widths, such as 0.75 2/3", COMPRESS, metavar="WIDTH"),
        Row("algo_list", f"ptq: how scales are chosen: {', '.join(ALGORITHMS)}", COMPRESS, choices=ALGORITHMS),
        Row("batch_size_list", "ptq: texts per calibration batch", COMPRESS, least=1),
        Row("batch_num_list", "ptq: calibration batches", COMPRESS, least=1),
        Row("round_type", "", COMPRESS, choices=("round", "adaround")),
        Row("max_drop", "points of the score that best/ may lose", COMPRESS, least=0),
        Row("weight_quantize_type", "", COMPRESS, choices=("channel_wise_abs_max", "abs_max")),
        Row("activation_quantize_type", "", COMPRESS, choices=ACTIVATION_RANGES),
        Row("bias_correction", "", COMPRESS),
        Row("use_pact", "", COMPRESS),
        Row("moving_rate", "", COMPRESS),
        Row("input_dtype", "", COMPRESS, choices=("int64", "int32")),
    ),
    "Training": (
        Row("learning_rate", "the largest, of AdamW", least=0),
        Row("num_train_epochs", "passes over the training data", least=0),
        Row("max_steps", "stop after N steps", least=-1),
        Row("per_device_train_batch_size", "per batch, of each process", least=1),
        Row("per_device_eval_batch_size", "the same, to score and predict", least=1),
        Row("gradient_accumulation_steps", least=1),
        Row("warmup_ratio", "share of steps with a rising rate"),
        Row("warmup_steps", least=0),
        Row("weight_decay", least=0),
        Row("lr_scheduler_type", choices=SCHEDULES),
        Row("num_cycles"),
        Row("lr_end"),
        Row("power"),
        Row("max_grad_norm"),
        Row("adam_beta1", least=0),
        Row("adam_beta2", least=0),
        Row("adam_epsilon", least=0),
        Row("seed", "of weights, dropout, batch order", least=0, below=2**32),
        Row("group_by_length", "random batches, not of texts of similar length"),
        Row("dataloader_drop_last"),
        Row("save_steps", "steps per checkpoint and dev score", least=1),
        Row("save_total_limit", "checkpoints kept beside the best (default: all)", least=1),
        Row("save_on_each_node"),
        Row("overwrite_output_dir", "drop the checkpoints, start again"),
        Row("resume_from_checkpoint", "resume from DIR (default: the last one)", RUN, metavar="DIR"),
        # None: `settle` says what nobody does.
        Row("save_strategy", "", RUN, choices=WHEN, default=None, instead_of="ignore_save_lr_and_optim"),
        Row("evaluation_strategy", "", RUN, choices=WHEN, default=None),
        Row("eval_steps", "", RUN, least=1, instead_of="max_evaluate_steps minimum_eval_times"),
        Row("load_best_model_at_end", "", RUN, default=None),
        Row("metric_for_best_model", "", RUN, instead_of="greater_is_better"),
    ),
    "Speed and output": (
        Row("device", "cpu, gpu, gpu:1, xpu or npu", metavar="NAME", instead_of="no_cuda"),
        Row("fp16", "mixed precision in float16, on a GPU", instead_of="fp16_full_eval scale_loss"),
        Row("bf16", "the same in bfloat16, from Ampere on", instead_of="bf16_full_eval"),
        Row("fp16_opt_level", choices=("O0", "O1", "O2")),
        Row("recompute"),
        Row("use_fast_tokenizer", "PaddleNLP's in Python: ten times slower"),
        Row("dataloader_num_workers", least=0, instead_of="distributed_dataloader"),
        Row("dynamic_max_length", least=1),
        Row("verbose", "also show PaddleNLP's own messages"),
        Row("disable_tqdm"),
        Row("logging_strategy", choices=WHEN),
        Row("logging_steps", least=1, instead_of="logging_first_step"),
        Row("logging_dir"),
        Row("report_to", choices=("visualdl", "tensorboard", "wandb", "all", "none")),
        Row("wandb_api_key"),
        Row("run_name"),
    ),
}
NAMES = tuple(dict.fromkeys(row.name for rows in TABLE.values() for row in rows))
PADDLENLPS = {field.name for field in dataclasses.fields(PaddleCompressionArguments)}


def refusal(flag, names):
    """The sentence about an argument that a script does not take.

    Args:
        flag: as the user wrote it, --flag or a key of the YAML file.
        names: those that it takes, written in the same way.
    """
    name = flag.lstrip("-")
    rows = [row for rows in TABLE.values() for row in rows]
    elsewhere = " ".join(row.scripts for row in rows if row.name == name)
    if elsewhere:
        return f"{flag} is an argument of {', '.join(f'{script}.py' for script in elsewhere.split())}"
    if name in PADDLENLPS:
        near = [flag.replace(name, row.name) for row in rows if name in row.instead_of.split()]
        use = "".join(f"; use {other}" for other in near if other in names)
        return f"{flag} has no use here, although PaddleNLP has it{use}"
    return f"unknown argument {flag}{nearest(flag, names)}"
