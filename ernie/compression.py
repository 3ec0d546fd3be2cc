"""Compression: the plan of a strategy, and the steps that make, score and time its variants."""

import copy
import dataclasses
import itertools
import os
import shutil
import time
from typing import NamedTuple

import numpy as np
import paddle
from ernie_predictor.machine import processor_kind
from ernie_predictor.runtimes import fastest_engine, installed_engines
from paddlenlp.trainer import TrainingArguments
from paddlenlp.trainer.trainer_utils import IntervalStrategy

from ernie import console
from ernie.checkpoints import find_checkpoint
from ernie.console import logger
from ernie.export import write_model_folder
from ernie.features import Collator
from ernie.files import check_replaceable, content_hash, new_folder, width_name
from ernie.identity import BASE, TRAINING_DATA, content_hashes, identity
from ernie.processes import alone, gather, wait_for_all
from ernie.pruning import PruningTrainer, Supernet, best_weights, importance, narrow, reorder
from ernie.quantization import QuantizationAwareTrainer, calibration_batches, write_calibrated, write_with_int8_tables
from ernie.report import DevSet, write_report
from ernie.results import METRICS, dev_metrics, read_metrics, write_metrics

IMPORTANCE_BATCHES = 64  # of training texts, on which heads and neurons are ranked


class Variant(NamedTuple):
    """One model folder that compression makes.

    Its kind is export (the fine-tuned model in FP32), width (narrower layers, trained with the fine-tuned model as
    teacher), ptq (INT8, calibrated on training texts), qat (INT8, by further training) or embeddings (INT8 tables).
    """

    name: str  # its folder below --output_dir
    kind: str
    base: str  # the variant that it is made from; None for the original
    options: dict


# Which kinds depend on an argument or on content, directly and not by way of what they are made from. What is not
# named here counts for each kind.
ONLY_FOR = {
    **{field.name: ("width", "qat") for field in dataclasses.fields(TrainingArguments)},
    "world_size": ("width", "qat"),
    TRAINING_DATA: ("width", "qat", "ptq"),
    "seed": ("width", "qat", "ptq"),
    "width_mult_list": ("width",),  # trained together
    "input_dtype": ("export",),
    **dict.fromkeys(("weight_quantize_type", "activation_quantize_type"), ("qat", "ptq")),
    **dict.fromkeys(("use_pact", "moving_rate"), ("qat",)),
    **dict.fromkeys(("round_type", "bias_correction"), ("ptq",)),
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
            for algo, size, number in itertools.product(algo_list, batch_size_list, batch_num_list):
                options = {"algo": algo, "batch_size": size, "batch_num": number}
                made.append(Variant(f"{prefix}{algo}{size}_{number}", "ptq", base, options))
        if "qat" in steps:
            made.append(Variant(f"{prefix}qat", "qat", base, {}))
        variants += made
        if "embeddings" in steps:
            sources = {variant.name: f"{variant.name}/" for variant in made} or {base: prefix}
            variants += [Variant(f"{start}quant_emb", "embeddings", source, {}) for source, start in sources.items()]
    return variants


# An optimizer's state is found by the names of parameters, which Paddle numbers throughout a process. A training
# numbers them anew: when it is resumed, other variants may have been made before it.
numbered_anew = paddle.utils.unique_name.guard


class Compression:
    """Makes and measures every variant that the arguments ask for, beside one another in --output_dir.

    Args:
        task: of `load_task`.
        model: the fine-tuned one.
        args: CompressionArguments.
        train, dev: `Split`s.
        pretrained_tokenizer: PaddleNLP's, which is saved beside each model.
    """

    def __init__(self, task, model, args, data_args, model_args, train, dev, pretrained_tokenizer):
        self.task, self.model, self.args, self.data_args = task, model, args, data_args
        self.train_split, self.dev_split, self.tokenizer = train, dev, pretrained_tokenizer
        self.arguments = (model_args, data_args, args)
        self.of_trainers = (data_args, train, dev, pretrained_tokenizer)
        self.collator = Collator(task.tokenizer, data_args.dynamic_max_length)
        self.dev_set = DevSet(dev, self.collator, args.per_device_eval_batch_size)
        self.contents = content_hashes(model, pretrained_tokenizer, train, dev)
        lists = (args.width_mult_list, args.algo_list, args.batch_size_list, args.batch_num_list)
        self.variants = {variant.name: variant for variant in plan(args.strategy, *lists)}

    @alone
    def compress(self):
        """Prunes and quantizes as --strategy says, and writes the report."""
        args = self.args
        variants = self.variants.values()
        # What one node lacks all make again (--save_on_each_node). Every process has looked before one writes.
        missing = set().union(*gather([variant.name for variant in variants if not self.stands(variant)]))
        for folder in map(self.folder, (*missing, "best")):
            if os.path.lexists(folder):
                check_replaceable(folder)
        console.row("plan", f"--strategy {args.strategy}: {len(variants)} variants in {args.output_dir}")
        narrow = [variant.name for variant in variants if variant.name in missing and self.needs_widths(variant)]
        bar = console.progress(variants, desc="variants")
        for variant in bar:
            bar.set_postfix_str(variant.name)
            if variant.name in missing:
                begin = time.perf_counter()
                if variant.name in narrow[:1]:
                    self.train_widths()  # all of them at once
                self.make(variant)
                wait_for_all()  # of several processes one writes and measures
                if args.should_save:
                    console.row("made", f"{self.describe(variant.name)}, {time.perf_counter() - begin:.0f} s")
            else:
                self.keep(variant.name)
        if not args.should_save:
            return
        others = [name for name in self.made_earlier() if name not in self.variants]
        for name in others:
            self.keep(name, ", of another command")
        names = [*self.variants, *others]
        write_report(args.output_dir, self.task.score, names, self.dev_set, args.max_drop)

    # What is there, and what it was made from

    def folder(self, name):
        return os.path.join(self.args.output_dir, name)

    def made_from(self, variant):
        """What metrics.json holds of a variant's identity: {"identity": hash, "base": that of what it is made from}."""
        base = variant.base and self.made_from(self.variants[variant.base])["identity"]
        return {"identity": content_hash(self.identity_of(variant.kind, base), variant.options), "base": base}

    def stands(self, variant):
        """Whether a variant's folder is there and was made from the very same."""
        return (read_metrics(self.folder(variant.name)) or {}).get("made_from") == self.made_from(variant)

    def identity_of(self, kind, base=None):
        """What variants of a kind, and trainings for them, are made from, but for options of their own."""
        others = {name for name, kinds in ONLY_FOR.items() if kind not in kinds}
        return identity(self.arguments, self.task, {**self.contents, BASE: base}, others)

    def made_earlier(self, base="export", inside=""):
        """Names of all variants that are there, and were made of the present original, by this or another command."""
        base_identity = read_metrics(self.folder(base))["made_from"]["identity"]
        names = []
        for entry in sorted(os.listdir(self.folder(inside))):
            name = os.path.join(inside, entry)
            if entry in ("best", "compression") or not os.path.exists(os.path.join(self.folder(name), "model.onnx")):
                continue
            made_from = (read_metrics(self.folder(name)) or {}).get("made_from", {})
            if made_from.get("base") == base_identity:
                names += [name, *self.made_earlier(name, name)]
            elif made_from.get("base"):
                logger.warning(f"{name} is not in the report: it was made from an earlier {base}")
        return names

    def describe(self, name):
        """A line about a variant: what it is, its dev score and the change from the original's, its size."""
        metrics, score = read_metrics(self.folder(name)), self.task.score
        change = metrics[score] - read_metrics(self.folder("export"))[score]
        size = os.path.getsize(os.path.join(self.folder(name), "model.onnx")) / 2**20
        text = f"{name}: {score.replace('_', ' ')} {100 * metrics[score]:.2f} ({100 * change:+.2f}), {size:.1f} MB"
        if "paddle_int8" in metrics:
            text += f", {100 * metrics['paddle_int8']['agreement']:.1f}% answers as Paddle's INT8"
        return text

    # Making and measuring

    def make(self, variant):
        """Makes a variant's folder, scores it, and puts it in its place atomically."""
        # What every process takes part in, before one writes.
        trained = self.train_quantized(variant) if variant.kind == "qat" else None
        if not self.args.should_save:
            return
        with new_folder(self.folder(variant.name)) as folder:
            if variant.kind in ("export", "width"):
                model = self.narrow_model(variant) if variant.kind == "width" else self.model
                write_model_folder(self.task, model, self.tokenizer, folder, self.args.input_dtype)
            elif variant.kind == "qat":
                trained.write_int8(folder)
            elif variant.kind == "ptq":
                algo, *sizes = variant.options.values()
                batches = calibration_batches(self.train_split.features, self.collator, *sizes, self.args)
                write_calibrated(self.folder(variant.base), folder, batches, algo, self.args)
            else:
                write_with_int8_tables(self.folder(variant.base), folder)
            write_metrics(folder, {**self.measure(folder), "made_from": self.made_from(variant)})
            keep_nested(self.folder(variant.name), folder)

    def keep(self, name, whose=""):
        """Keeps a variant that is there; scores it with all engines, if one was not installed when it was made."""
        folder, found = self.folder(name), read_metrics(self.folder(name))
        if self.args.should_save and not {*installed_engines()} <= {found.get("engine"), *found}:
            write_metrics(folder, {**self.measure(folder), "made_from": found["made_from"]})
        console.row("there", self.describe(name) + whose)

    def measure(self, folder):
        """metrics.json of a variant: its dev scores with the engine that the predictor takes for it on this processor,
        and how far the others agree."""
        onnx_file, int8 = os.path.join(folder, "model.onnx"), os.path.join(folder, "int8")
        logits = {engine: self.dev_set.onnx_logits(onnx_file, engine) for engine in installed_engines()}
        if os.path.exists(f"{int8}.pdmodel"):
            logits["paddle_int8"] = self.dev_set.paddle_logits(int8, self.args.input_dtype)
        engine = fastest_engine(onnx_file)
        own, split = logits.pop(engine), self.dev_split
        metrics = dev_metrics(self.data_args, split, split.scores(own))
        metrics |= {"engine": engine, "processor": processor_kind()}
        for other, found in logits.items():
            metrics[other] = {**split.scores(found), "agreement": self.dev_set.agreement(found, own)}
        return metrics

    # Pruning

    def needs_widths(self, variant):
        """Whether a variant is made of the weights of a width."""
        return variant.kind == "width" or (variant.kind == "qat" and self.variants[variant.base].kind == "width")

    @numbered_anew("widths.")
    def train_widths(self):
        """Trains one network at all widths, starting from the fine-tuned model; the best of each is kept on disk."""
        arguments = self.arguments_of_training("dynabert", load_best_model_at_end=False)
        training = self.identity_of("width")
        checkpoint = find_checkpoint(arguments, training)
        model = copy.deepcopy(self.model)
        if checkpoint is None:  # a checkpoint's weights are in order
            reorder(model, importance(model, self.importance_batches()))
            if self.args.should_save:
                for width_mult in self.args.width_mult_list:  # of another training
                    folder = os.path.dirname(best_weights(arguments.output_dir, width_mult))
                    shutil.rmtree(folder, ignore_errors=True)
        supernet = Supernet(model, self.args.width_mult_list)
        PruningTrainer(self.task, supernet, arguments, *self.of_trainers).run(training, checkpoint)

    def narrow_model(self, variant):
        """The best model of a width, after `train_widths`."""
        width_mult, model = variant.options["width_mult"], copy.deepcopy(self.model)
        model.set_state_dict(paddle.load(best_weights(self.training_folder("dynabert"), width_mult)))
        return narrow(model, width_mult)

    def importance_batches(self):
        """Random training texts in batches of tensors, with labels; the same for each of several processes.

        Not the dev set, which scores what is made of them.
        """
        features, size = self.train_split.features, self.args.per_device_train_batch_size
        chosen = np.random.default_rng(self.args.seed).permutation(len(features))[: IMPORTANCE_BATCHES * size]
        chosen = sorted((features[i] for i in chosen), key=lambda feature: len(feature["input_ids"]))
        batches = (self.collator(chosen[i : i + size]) for i in range(0, len(chosen), size))
        return [{name: paddle.to_tensor(array) for name, array in batch.items()} for batch in batches]

    # Quantization-aware training

    @numbered_anew("qat.")
    def train_quantized(self, variant):
        """The trainer of a model with fake quantization, after its training."""
        base = self.variants[variant.base]
        model = self.narrow_model(base) if base.kind == "width" else copy.deepcopy(self.model)
        arguments = self.arguments_of_training(variant.name, load_best_model_at_end=True)
        training = self.identity_of("qat", self.made_from(variant)["base"])
        trainer = QuantizationAwareTrainer(self.task, model, arguments, *self.of_trainers)
        trainer.run(training, find_checkpoint(arguments, training))
        return trainer

    # What the trainings have in common

    def training_folder(self, name):
        return os.path.join(self.args.output_dir, "compression", name.replace("/", "-"))

    def arguments_of_training(self, name, load_best_model_at_end):
        """This command's arguments, for a training with checkpoints in a folder of its own."""
        arguments = copy.copy(self.args)
        arguments.output_dir = self.training_folder(name)
        arguments.evaluation_strategy, arguments.eval_steps = IntervalStrategy.STEPS, arguments.save_steps
        arguments.load_best_model_at_end = load_best_model_at_end
        arguments.metric_for_best_model = self.task.score if load_best_model_at_end else None
        return arguments


def keep_nested(old, new):
    """Gives a variant that takes another's place the variants inside that one, which were made from it.

    They are outdated, as `made_from` tells, and are made again when they are asked for; until then nothing is lost.
    Files are linked, not moved: at a kill they are still in their place.
    """
    for entry in os.listdir(old) if os.path.isdir(old) else ():
        if os.path.exists(os.path.join(old, entry, METRICS)):
            shutil.copytree(os.path.join(old, entry), os.path.join(new, entry), symlinks=True, copy_function=_link)


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
