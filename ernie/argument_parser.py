"""The parser of the six scripts: PaddleNLP's, with a --help of one page.

--help shows the arguments that matter, in groups; --help_all adds PaddleNLP's others.
"""

import argparse
import sys

from ernie_predictor import commandline
from paddlenlp.trainer import PdArgumentParser

from ernie.argument_checks import CHECKPOINTING, WITHOUT_EFFECT
from ernie.errors import UsageError
from ernie.tasks import DATA_SETS

MODEL_AND_DATA = ("model_name_or_path", "dataset", "data_dir", "output_dir", "config", "max_seq_length")
BATCHES = ("per_device_train_batch_size", "per_device_eval_batch_size")
READING = ("doc_stride", "max_query_length", "n_best_size", "max_answer_length")
SPEED = ("device", "fp16", "bf16", "no_group_by_length", "no_use_fast_tokenizer", "dynamic_max_length", "verbose")
GROUPS = {
    "Model and data": (*MODEL_AND_DATA, "export_model_dir"),
    "Steps": ("do_train", "do_eval", "do_predict", "do_export"),
    "Training": (
        *("learning_rate", "num_train_epochs", "max_steps", *BATCHES, "warmup_ratio", "save_steps"),
        *("save_total_limit", "seed", "overwrite_output_dir", "resume_from_checkpoint"),
    ),
    "Reading comprehension": READING,
    "Speed and output": SPEED,
}
COMPRESSION_GROUPS = {
    "Model and data": MODEL_AND_DATA,
    "Compression": ("strategy", "width_mult_list", "algo_list", "batch_size_list", "batch_num_list", "max_drop"),
    "Training of dynabert and qat": ("learning_rate", "num_train_epochs", "max_steps", *BATCHES, "save_steps", "seed"),
    "Reading comprehension": READING,
    "Speed and output": SPEED,
}

# In place of PaddleNLP's help texts that say too little, or are not true of these scripts.
HELP = {
    "output_dir": "results go to DIR/<dataset>",
    "overwrite_output_dir": "drop the checkpoints, start again",
    "resume_from_checkpoint": "go on from there (default: the last one)",
    "do_train": "fine-tune on the train split",
    "do_eval": "score the dev split, keep the best checkpoint",
    "do_predict": "predict the test split",
    "do_export": "write a Paddle and an ONNX model",
    "learning_rate": "the largest, of AdamW",
    "num_train_epochs": "passes over the training data",
    "max_steps": "stop after N steps",
    "warmup_ratio": "share of the steps in which the rate rises",
    "warmup_steps": "the same as a number of steps; wins over --warmup_ratio",
    "per_device_train_batch_size": "per batch, of each process",
    "per_device_eval_batch_size": "the same, to score and predict",
    "gradient_accumulation_steps": "batches per step",
    "save_steps": "per checkpoint and dev score",
    "save_total_limit": "checkpoints kept beside the best (default: all)",
    "save_strategy": "when a checkpoint is saved (default: steps)",
    "evaluation_strategy": "when the dev split is scored (default: as --save_strategy, with --do_eval)",
    "eval_steps": "steps from one dev score to the next (default: --save_steps)",
    "load_best_model_at_end": "end with the checkpoint of the best dev score (default: on with --do_eval)",
    "metric_for_best_model": "the score that decides it (default: accuracy; NER: f1, QA: exact_match)",
    "greater_is_better": "follows from the score",
    "lr_scheduler_type": "linear, cosine, constant, constant_with_warmup or polynomial",
    "seed": "of weights, dropout, batch order",
    "device": "cpu, gpu, gpu:1, xpu or npu",
    "no_cuda": "the same as --device cpu",
    "fp16": "mixed precision in float16, on a GPU",
    "bf16": "the same in bfloat16, from Ampere on",
    "fp16_opt_level": "of mixed precision: O0, O1 or O2",
    "logging_dir": "for VisualDL (default: <output_dir>/<dataset>/runs)",
    "logging_steps": "steps from one log line to the next",
    "dataloader_drop_last": "leave out the last batch of an epoch if it is not full",
    "report_to": "where scores are logged: visualdl, tensorboard, wandb, all or none",
    "optim": "the optimizer",
    "disable_tqdm": "show no progress bars",
    "local_rank": "set by paddle.distributed.launch",
    "label_names": "follow from the task",
    "skip_profile_timer": "do not print a timeline of each step",
    "skip_memory_metrics": "do not measure memory",
    "sharding": "stage1, stage2 or stage3: divide the optimizer's state among several processes",
    "sharding_degree": "deprecated, use --sharding_parallel_degree",
    "run_name": "for the reports",
    # of compression
    "input_dtype": "of the exported models' inputs: int64 or int32",
    "input_infer_model_path": "compress this static model (its path without extension), by ptq alone",
    "weight_quantize_type": "channel_wise_abs_max or abs_max",
    "activation_quantize_type": "abs_max, range_abs_max (default of ptq) or moving_average_abs_max (default of qat)",
    "round_type": "of weights, for ptq: round or adaround",
    "onnx_format": "write Paddle's INT8 models with quantize and dequantize operators",
}
COMPRESSION_HELP = {
    "model_name_or_path": "folder that run_*.py fine-tuned",
    "output_dir": "for the variants (default: --model_name_or_path)",
    "save_steps": "per checkpoint and dev score",
}
# Not even in --help_all: they have no effect here, or are refused.
HIDDEN = (
    *("help", "help_all", *READING, *WITHOUT_EFFECT, "force_reshard_pp", "hybrid_parallel_topo_order"),
    *("tensor_parallel_degree", "tensor_parallel_config", "pipeline_parallel_degree", "pipeline_parallel_config"),
    "sep_parallel_degree",
)
HIDDEN_IN_COMPRESSION = (
    *("export_model_dir", *GROUPS["Steps"], *CHECKPOINTING, "resume_from_checkpoint", "greater_is_better"),
    *("do_compress", "prune_embeddings"),
)
# What --no_x means.
OFF = {
    "use_fast_tokenizer": "ten times slower",
    "group_by_length": "random batches",
}
METAVARS = {
    "model_name_or_path": "MODEL",
    "dataset": "NAME",
    "device": "NAME",
    "width_mult_list": "WIDTH",
    **dict.fromkeys(("data_dir", "output_dir", "export_model_dir", "logging_dir", "resume_from_checkpoint"), "DIR"),
    **dict.fromkeys(("config", "input_infer_model_path"), "FILE"),
}


class ArgumentParser(PdArgumentParser):
    """PaddleNLP's parser, whose errors are one message in place of two hundred lines of usage.

    As there, an abbreviation stands for the one argument that begins so.

    Args:
        dataclass_types: what the arguments are read into.
        task: a row of `TASKS`.
        compress: the script is a compress_*.py.
        about: the script's docstring, which --help begins with.
    """

    def __init__(self, dataclass_types, task, compress=False, about=""):
        super().__init__(dataclass_types, formatter_class=HelpFormatter, description=about)
        self.add_argument("--help_all", action=HelpAll, nargs=0)
        if compress:
            self.usage = "%(prog)s --model_name_or_path MODEL --dataset NAME [...]"
        else:
            self.usage = "%(prog)s --model_name_or_path MODEL --dataset NAME --output_dir DIR --do_train [...]"
        # Checked by `check_required`, when the YAML file is read and wrong names are found.
        self.required = [action for action in self._actions if action.required]
        for action in self.required:
            action.required = False
        if compress:  # its default is --model_name_or_path
            self.required.remove(next(action for action in self.required if action.dest == "output_dir"))
        names = ", ".join(name for name, row in DATA_SETS.items() if row.task is task)
        texts = {
            **HELP,
            **(COMPRESSION_HELP if compress else {}),
            "dataset": f"{names}; or your own, with --data_dir",
            "data_dir": f"has <dataset>/{{train,dev,test}}.{task.suffixes[0]} (default: hub)",
            "max_seq_length": f"{task.max_seq_length_is} (default: a fine-tuned model's, else 128)",
        }
        self.by_name = {action.option_strings[-1].lstrip("-"): action for action in self._actions}
        for name, action in self.by_name.items():
            if name == f"no_{action.dest}":
                action.help = f"turn off --{action.dest}" + (f": {OFF[action.dest]}" if action.dest in OFF else "")
            else:
                action.help = texts.get(name, action.help)
            if action.choices is None:
                action.metavar = METAVARS.get(name, "N" if action.type in (int, float) else "VALUE")
        groups = dict(COMPRESSION_GROUPS if compress else GROUPS)
        reading = tuple(name for name in READING if name in task.defaults)
        if reading != READING:
            del groups["Reading comprehension"]
            groups["Model and data"] += reading
        self.hidden = {*HIDDEN, *(HIDDEN_IN_COMPRESSION if compress else ())}
        self.groups = {title: [self.by_name[name] for name in names] for title, names in groups.items()}

    def check_required(self, values):
        """Raises UsageError where the command line lacks an argument, and the YAML file, too."""
        missing = [action.option_strings[0] for action in self.required if getattr(values, action.dest) is None]
        if missing:
            example = self.description.partition("\n\n")[2].partition("\npython ")[0]
            self.error(f"the following arguments are required: {', '.join(missing)}, as in\n  {example}")

    def error(self, message):
        raise UsageError(f"{message}\n  python {self.prog} --help lists the arguments")

    def format_help(self, everything=False):
        """The text of --help, or of --help_all."""
        groups = dict(self.groups)
        shown = [action for actions in groups.values() for action in actions]
        others = [action for name, action in self.by_name.items() if action not in shown and name not in self.hidden]
        if everything:
            groups["Other arguments, most of them PaddleNLP's"] = others
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for title, actions in groups.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        if not everything:
            formatter.add_text(f"--help_all shows the other {len(others)} arguments, too, most of them PaddleNLP's")
        return formatter.format_help()


class HelpAll(argparse.Action):
    """--help_all"""

    def __call__(self, parser, namespace, values, option_string=None):
        sys.stdout.write(parser.format_help(everything=True))
        parser.exit()


class HelpFormatter(commandline.HelpFormatter):
    """Shows flags without the value that they may take."""

    def _format_args(self, action, default_metavar):
        if action.nargs == "?":
            return ""
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action):
        return super()._format_action_invocation(action).rstrip()
