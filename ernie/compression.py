"""Compression: the plan of a strategy, and the trainer that makes, scores and times its variants."""

import copy
import functools
import os
import shutil
import time
from typing import NamedTuple

import numpy as np
import paddle
from ernie_predictor.int8 import quantize_onnx
from ernie_predictor.machine import processor_kind
from ernie_predictor.runtimes import fastest_engine, installed_engines
from paddlenlp.trainer.trainer_utils import IntervalStrategy

from ernie import console, paddle_int8
from ernie.argument_checks import width_name
from ernie.console import logger
from ernie.dev_set import DevSet
from ernie.errors import UserError
from ernie.export import dev_metrics, save_config_and_tokenizer, write_model_folder
from ernie.files import (
    check_replaceable,
    content_hash,
    copy_config_and_tokenizer,
    file_hash,
    new_folder,
    read_metrics,
    weights_hash,
    write_json,
)
from ernie.onnx_graph import write_onnx
from ernie.processes import alone, check_shared, gather, wait_for_all
from ernie.pruning import PruningTrainer, Supernet, importance, reorder
from ernie.quantization import QuantizationAwareTrainer, calibration_batches, write_calibrated
from ernie.report import pick_best, write_report
from ernie.training import ErnieTrainer, find_checkpoint, resume_identity

VERSION = 2  # of what is made of the same inputs: another number makes every variant again
PRUNING_VERSION = 2  # the same, of widths and what is made from them
IMPORTANCE_BATCHES = 64  # of training texts, on which heads and neurons are ranked


class Variant(NamedTuple):
    """One model folder that compression makes."""

    name: str  # its folder below --output_dir
    kind: str  # a key of `KINDS`
    base: str  # the variant that it is made from; None for the original
    options: dict


KINDS = {
    "export": "the fine-tuned model in FP32",
    "width": "narrower layers, trained with the fine-tuned model as teacher",
    "ptq": "INT8, calibrated on training texts",
    "qat": "INT8, by further training",
    "embeddings": "with INT8 embedding tables",
}


def plan(strategy, width_mult_list=(0.75,), algo_list=("mse",), batch_size_list=(16,), batch_num_list=(1,)):
    """The variants of a strategy, each after the one that it is made from; the original comes first.

    Args:
        strategy: one of `STRATEGIES`; the lists are those of CompressionArguments.
    """
    steps = strategy.split("+")
    variants = [Variant("export", "export", None, {})]
    bases = {"export": ""}  # {what is quantized: the beginning of the names of what is made from it}
    if "dynabert" in steps:
        widths = [Variant(width_name(w), "width", "export", {"width_mult": w}) for w in width_mult_list]
        variants += widths
        bases = {variant.name: f"{variant.name}/" for variant in widths}
    for base, prefix in bases.items():
        made = []
        if "ptq" in steps:
            made += [
                Variant(
                    f"{prefix}{algo}{batch_size}_{batch_num}",
                    "ptq",
                    base,
                    {"algo": algo, "batch_size": batch_size, "batch_num": batch_num},
                )
                for algo in algo_list
                for batch_size in batch_size_list
                for batch_num in batch_num_list
            ]
        if "qat" in steps:
            made.append(Variant(f"{prefix}qat", "qat", base, {}))
        variants += made
        if "embeddings" in steps:
            sources = {variant.name: f"{variant.name}/" for variant in made} or {base: prefix}
            variants += [Variant(f"{start}quant_emb", "embeddings", source, {}) for source, start in sources.items()]
    return variants


class CompressionTrainer(ErnieTrainer):
    """PaddleNLP's Trainer with a compress() that makes and measures every variant that its arguments ask for.

    The arguments are those of `ErnieTrainer`, with CompressionArguments as `args`.
    """

    @alone
    def compress(self):
        """Prunes and quantizes as --strategy says; returns the rows of compression_report.json."""
        args = self.args
        check_shared(args)
        self.baseline = self.task.baseline(self.dev_split.examples)
        self.dev_set = DevSet(self.dev_split, self.data_collator, args.per_device_eval_batch_size)
        variants = plan(args.strategy, args.width_mult_list, args.algo_list, args.batch_size_list, args.batch_num_list)
        self.variants = {variant.name: variant for variant in variants}
        self.identities = {}
        # What one node lacks all make again (--save_on_each_node). Every process has looked before one writes.
        missing = set().union(*gather([variant.name for variant in variants if not self.stands(variant)]))
        for folder in map(self.folder, (*missing, "best")):
            if os.path.lexists(folder):
                check_replaceable(folder)
        console.row("plan", f"--strategy {args.strategy}: {len(variants)} variants in {args.output_dir}")
        bar = console.progress(variants, desc="variants")
        for variant in bar:
            bar.set_postfix_str(variant.name)
            if variant.name in missing:
                self.make(variant)
                wait_for_all()  # of several processes one writes and measures
            else:
                self.score_again(variant.name)
                console.row("there", self.describe(variant.name, read_metrics(self.folder(variant.name))))
        if not args.should_save:
            return None
        names = [variant.name for variant in variants]
        for name in self.made_earlier():
            if name not in names:
                names.append(name)
                self.score_again(name)
                console.row("there", f"{self.describe(name, read_metrics(self.folder(name)))}, of another command")
        rows = write_report(
            *(args.output_dir, self.data_args.dataset, self.task.score, names, self.dev_set),
            *(self.baseline, args.max_drop),
        )
        pick_best(args.output_dir, rows, args.max_drop)
        return rows

    # Variants

    def folder(self, name):
        return os.path.join(self.args.output_dir, name)

    def stands(self, variant):
        """Whether a variant's folder is there and was made from the very same."""
        found = read_metrics(self.folder(variant.name))
        return found is not None and found.get("made_from") == self.made_from(variant)

    def made_earlier(self, base="export", inside=""):
        """Names of all variants that are there, and were made of the present original, by this or another command."""
        identity = content_hash(read_metrics(self.folder(base))["made_from"])
        names = []
        for entry in sorted(os.listdir(self.folder(inside))):
            name = os.path.join(inside, entry)
            if entry in ("best", "compression") or not os.path.exists(os.path.join(self.folder(name), "model.onnx")):
                continue
            made_from = (read_metrics(self.folder(name)) or {}).get("made_from", {})
            if made_from.get("base") == identity:
                names += [name, *self.made_earlier(name, name)]
            elif "base" in made_from:
                logger.warning(f"{name} is not in the report: it was made from an earlier {base}")
        return names

    def made_from(self, variant):
        """Identity of a variant: the options that count, and hashes of data, labels and weights."""
        if variant.name not in self.identities:
            self.identities[variant.name] = self.identify(variant)
        return self.identities[variant.name]

    def identify(self, variant):
        args, data_args = self.args, self.data_args
        if variant.base is None:
            names = "dataset max_seq_length doc_stride max_query_length max_answer_length n_best_size"
            identity = {name: getattr(data_args, name) for name in names.split()}
            identity.update(
                version=VERSION,
                input_dtype=args.input_dtype,
                dev_data=content_hash(self.dev_split.hashes()),
                tokenizer=content_hash(self.tokenizer.get_vocab(), self.tokenizer.do_lower_case),
                model_settings=content_hash(getattr(self.model.config, "task_specific_params", None)),
            )
            if args.input_infer_model_path:
                return {**identity, "static_model": [file_hash(path) for path in self.static_model_files()]}
            return {**identity, "weights": weights_hash(self.model)}
        identity = {"base": content_hash(self.made_from(self.variants[variant.base])), **variant.options}
        if variant.kind == "width":
            identity.update(self.pruning_identity)
        elif variant.kind == "qat":
            identity.update(self.qat_identity(variant))
        elif variant.kind == "ptq":
            options = "seed weight_quantize_type activation_quantize_type round_type bias_correction onnx_format"
            identity.update({name: getattr(args, name) for name in options.split()})
            batches = self.calibration_batches(variant)
            identity["calibration_texts"] = content_hash(*(b[name] for b in batches for name in sorted(b)))
        return identity

    def make(self, variant):
        """Makes a variant's folder, scores it, and puts it in its place atomically."""
        begin = time.perf_counter()
        trained = None  # what every process takes part in
        if variant.kind == "width":
            trained = self.narrow_model(variant.options["width_mult"])
        elif variant.kind == "qat":
            trained = self.train_quantized(variant)
        if not self.args.should_save:
            return
        with new_folder(self.folder(variant.name)) as folder:
            if variant.kind == "export" and self.args.input_infer_model_path:
                self.adopt_static_model(folder)
            elif variant.kind in ("export", "width"):
                model = trained or self.model
                write_model_folder(self.task, model, self.tokenizer, folder, self.args.input_dtype)
            elif variant.kind == "qat":
                trained.write_int8(folder)
            else:
                source = self.folder(variant.base)
                if variant.kind == "ptq":
                    batches = self.calibration_batches(variant)
                    write_calibrated(source, folder, batches, variant.options["algo"], self.args)
                else:
                    quantize_tables(source, folder)
                copy_config_and_tokenizer(source, folder)
            metrics = self.measure(folder)
            write_json(os.path.join(folder, "metrics.json"), {**metrics, "made_from": self.made_from(variant)})
            keep_nested(self.folder(variant.name), folder)
        console.row("made", f"{self.describe(variant.name, metrics)}, {time.perf_counter() - begin:.0f} s")

    def score_again(self, name):
        """Scores a variant that is there with all engines, if one was not installed when it was made."""
        found = read_metrics(self.folder(name))
        if self.args.should_save and not {*installed_engines()} <= {found.get("engine"), *found}:
            metrics = {**self.measure(self.folder(name)), "made_from": found["made_from"]}
            write_json(os.path.join(self.folder(name), "metrics.json"), metrics)

    def describe(self, name, metrics):
        """A line about a variant: what it is, its dev score and the change from the original's, its size."""
        score = self.task.score
        original = read_metrics(self.folder("export"))[score]
        size = os.path.getsize(os.path.join(self.folder(name), "model.onnx")) / 2**20
        text = (
            f"{name}: {score.replace('_', ' ')} {100 * metrics[score]:.2f} "
            f"({100 * (metrics[score] - original):+.2f}), {size:.1f} MB"
        )
        if "paddle_int8" in metrics:
            text += f", {100 * metrics['paddle_int8']['agreement']:.1f}% answers as Paddle's INT8"
        return text

    def measure(self, folder):
        """metrics.json of a variant: its dev scores with the engine that the predictor takes for it on this processor,
        and how far the others agree."""
        onnx_file = os.path.join(folder, "model.onnx")
        engine = fastest_engine(onnx_file)
        logits = self.dev_set.onnx_logits(onnx_file, engine)
        num_examples = len(self.dev_split.examples)
        metrics = dev_metrics(self.data_args, num_examples, self.dev_set.scores(logits), self.baseline)
        metrics |= {"engine": engine, "processor": processor_kind()}
        for other in (name for name in installed_engines() if name != engine):
            found = self.dev_set.onnx_logits(onnx_file, other)
            metrics[other] = {**self.dev_set.scores(found), "agreement": self.dev_set.agreement(found, logits)}
        int8 = os.path.join(folder, "int8")
        if os.path.exists(f"{int8}.pdmodel") and self.args.onnx_format:
            found = self.dev_set.paddle_logits(int8, self.args.input_dtype)
            agreement = self.dev_set.agreement(found, logits)
            metrics["paddle_int8"] = {**self.dev_set.scores(found), "agreement": agreement}
        return metrics

    def static_model_files(self):
        """The two files of --input_infer_model_path."""
        paths = [self.args.input_infer_model_path + suffix for suffix in (".pdmodel", ".pdiparams")]
        for path in paths:
            if not os.path.exists(path):
                raise UserError(
                    f"--input_infer_model_path {self.args.input_infer_model_path}: there is no {path}; expected the "
                    "path of a static model without its extension"
                )
        return paths

    def adopt_static_model(self, folder):
        for path in self.static_model_files():
            shutil.copyfile(path, os.path.join(folder, "model" + os.path.splitext(path)[1]))
        write_onnx(folder, self.task.outputs, first_token_only=not self.task.per_token)
        save_config_and_tokenizer(self.model, self.tokenizer, folder)

    def calibration_batches(self, variant):
        size, number = variant.options["batch_size"], variant.options["batch_num"]
        return calibration_batches(
            self.train_split.features, self.data_collator, size, number, self.args.seed, self.args.input_dtype
        )

    # Pruning

    @functools.cached_property
    def pruning_identity(self):
        more = {"width_mult_list": self.args.width_mult_list, "pruning_version": PRUNING_VERSION}
        return resume_identity(self.data_args, self.args, self.model, self.train_split, self.dev_split, **more)

    def narrow_model(self, width_mult):
        """The best narrow model of a width."""
        return self.supernet_trainer.best_model(width_mult, copy.deepcopy(self.model))

    @functools.cached_property
    def supernet_trainer(self):
        """Trains one network at all widths, starting from the fine-tuned model; the trainer keeps the best of each."""
        model = copy.deepcopy(self.model)
        arguments = self.arguments_of_training("dynabert", load_best_model_at_end=False)
        checkpoint = find_checkpoint(arguments, self.pruning_identity)
        if checkpoint is None:  # a checkpoint's weights are in order
            reorder(model, importance(model, self.importance_batches(), self.compute_loss))
        supernet = Supernet(model, self.args.width_mult_list)
        trainer = PruningTrainer(self.task, supernet, arguments, *self.shared_by_trainers())
        trainer.identity = self.pruning_identity
        if checkpoint is None and self.args.should_save:
            trainer.forget_best()
        self.run_training(trainer, checkpoint)
        return trainer

    def importance_batches(self):
        """Random training texts in batches of tensors, with labels; the same for each of several processes.

        Not the dev set, which scores what is made of them.
        """
        features, size = self.train_split.features, self.args.per_device_train_batch_size
        chosen = np.random.default_rng(self.args.seed).permutation(len(features))[: IMPORTANCE_BATCHES * size]
        chosen = sorted((features[i] for i in chosen), key=lambda feature: len(feature["input_ids"]))
        batches = (self.data_collator(chosen[i : i + size]) for i in range(0, len(chosen), size))
        return [{name: paddle.to_tensor(array) for name, array in batch.items()} for batch in batches]

    # Quantization-aware training

    def qat_identity(self, variant):
        """Its starting weights are those of its base, which `made_from` identifies."""
        options = "use_pact weight_quantize_type activation_quantize_type moving_rate onnx_format"
        options = {name: getattr(self.args, name) for name in options.split()}
        base = content_hash(self.made_from(self.variants[variant.base]))
        return resume_identity(
            self.data_args, self.args, self.model, self.train_split, self.dev_split, **options, base=base
        )

    def train_quantized(self, variant):
        """The trainer of a model with fake quantization, after its training."""
        base = self.variants[variant.base]
        model = self.narrow_model(base.options["width_mult"]) if base.kind == "width" else self.model
        arguments = self.arguments_of_training(variant.name, load_best_model_at_end=True)
        identity = self.qat_identity(variant)
        checkpoint = find_checkpoint(arguments, identity)
        trainer = QuantizationAwareTrainer(
            self.args, self.task, copy.deepcopy(model), arguments, *self.shared_by_trainers()
        )
        trainer.identity = identity
        self.run_training(trainer, checkpoint)
        return trainer

    # What the trainings have in common

    def arguments_of_training(self, name, load_best_model_at_end):
        """This command's arguments, for a training with checkpoints in a folder of its own."""
        arguments = copy.copy(self.args)
        arguments.output_dir = os.path.join(self.args.output_dir, "compression", name.replace("/", "-"))
        arguments.do_train = arguments.do_eval = True
        arguments.evaluation_strategy = arguments.save_strategy = IntervalStrategy.STEPS
        arguments.eval_steps = arguments.save_steps
        arguments.load_best_model_at_end = load_best_model_at_end
        arguments.metric_for_best_model = self.task.score if load_best_model_at_end else None
        arguments.greater_is_better = True
        return arguments

    def shared_by_trainers(self):
        return self.data_args, self.train_split, self.dev_split, self.tokenizer

    def run_training(self, trainer, checkpoint):
        trainer.train(resume_from_checkpoint=checkpoint)
        wait_for_all()  # the first process has written what all read


def keep_nested(old, new):
    """Gives a variant that takes another's place the variants inside that one, which were made from it.

    They are outdated, as `made_from` tells, and are made again when they are asked for; until then nothing is lost.
    Files are linked, not moved: at a kill they are still in their place.
    """
    for entry in os.listdir(old) if os.path.isdir(old) else ():
        if os.path.exists(os.path.join(old, entry, "metrics.json")):
            shutil.copytree(os.path.join(old, entry), os.path.join(new, entry), symlinks=True, copy_function=_link)


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def quantize_tables(source, folder):
    """Embedding tables of a variant's folder in INT8: int8.pdmodel and model.onnx of another."""
    prefix = "int8" if os.path.exists(os.path.join(source, "int8.pdmodel")) else "model"
    paddle_int8.quantize_embeddings(os.path.join(source, prefix), os.path.join(folder, "int8"))
    onnx_files = (os.path.join(path, "model.onnx") for path in (source, folder))
    quantize_onnx(*onnx_files, None, quantize_tables=True)
