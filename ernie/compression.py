"""Compression: the strategies in order, each variant a model folder that is whole or not there."""

import workarounds

import copy
import glob
import hashlib
import os
import shutil

import numpy as np
import paddle
from paddlenlp.trainer.trainer_utils import IntervalStrategy
from paddlenlp.utils.log import logger

from ernie_predictor.int8 import quantize_onnx
from ernie_predictor.runtimes import installed_engines
from ernie.arguments import MAIN_SCORE, UserError
from ernie.export import (
    dev_metrics,
    new_folder,
    read_metrics,
    save_config_and_tokenizer,
    write_json,
    write_model_folder,
    write_onnx,
)
from ernie.pruning import PruningTrainer, Supernet, importance, reorder, width_name
from ernie.quantization import QuantizationAwareTrainer, adaptive_rounding, calibration_batches
from ernie.report import DevSet, pick_best, write_report
from ernie.training import ErnieTrainer, find_checkpoint, training_settings


class CompressionTrainer(ErnieTrainer):
    """PaddleNLP's Trainer, whose compress() makes and measures every variant that its arguments ask for."""

    def __init__(self, *args, task, model_args, data_args, num_examples, baseline, **kwargs):
        """As a Trainer, with CompressionArguments for `args`.

        Args:
            task: as in `SCRIPTS`.
            num_examples: of the dev set.
            baseline: for metrics.json, see `dev_metrics`.
        """
        super().__init__(*args, data_args=data_args, **kwargs)
        self.task, self.model_args = task, model_args
        self.num_examples, self.baseline = num_examples, baseline

    def compress(self):
        """Prunes and quantizes as --strategy says; returns the rows of compression_report.json."""
        args = self.args
        if args.should_save:
            for leftover in glob.glob(os.path.join(glob.escape(args.output_dir), "**", ".*.part*"), recursive=True):
                shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed
        steps = set(args.strategy.split("+"))
        self.dev_set = DevSet(
            self.eval_dataset,
            self.data_collator,
            args.per_device_eval_batch_size,
            self.label_names,
            self.compute_metrics,
        )
        if args.input_infer_model_path:
            original = self.adopt("export", args.input_infer_model_path)
        else:
            original = self.export("export", self.model, {})
        variants = [original]
        bases = [(original, "", self.model)]
        if "dynabert" in steps:
            bases = []
            for width_mult, model in self.prune():
                name = width_name(width_mult)
                variants.append(self.export(name, model, {"width_mult": width_mult}))
                bases.append((name, name + "/", model))
        for base, prefix, model in bases:
            made = []
            if "ptq" in steps:
                made += self.calibrate(base, prefix)
            if "qat" in steps:
                made.append(self.train_quantized(prefix + "qat", model))
            variants += made
            if "embeddings" in steps:
                for name in made or [base]:
                    inner = prefix + "quant_emb" if name == base else f"{name}/quant_emb"
                    variants.append(self.quantize_tables(inner, name))
        if not args.should_save:  # of several processes one measures
            return None
        rows, engine = write_report(
            args.output_dir, self.data_args.dataset, MAIN_SCORE[self.task], variants, self.dev_set
        )
        if args.max_drop is not None:
            pick_best(args.output_dir, rows, engine, args.max_drop)
        return rows

    # Variants

    def variant(self, name, made_from, write, quantized=False):
        """Makes a variant's folder with write(folder), scores it, and puts it in place whole.

        A folder that stands there and was made from the very same is kept.
        """
        folder = os.path.join(self.args.output_dir, name)
        if not self.args.should_save:
            return name
        found = read_metrics(folder)
        if found is not None and found.get("made_from") == made_from:
            logger.info(f"{folder} is there already")
            return name
        logger.info(f"making {folder}")
        with new_folder(folder) as part:
            write(part)
            metrics = self.measure(part, quantized)
            write_json(os.path.join(part, "metrics.json"), {**metrics, "made_from": made_from})
        logger.info(f"{folder}: {MAIN_SCORE[self.task]} {100 * metrics[MAIN_SCORE[self.task]]:.2f}")
        return name

    def measure(self, folder, quantized):
        """metrics.json of a variant: its dev scores through the fastest engine, and how far the others agree."""
        engine, *others = installed_engines()
        onnx_file = os.path.join(folder, "model.onnx")
        logits = self.dev_set.onnx_logits(onnx_file, engine)
        metrics = dev_metrics(self.data_args.dataset, self.num_examples, self.dev_set.scores(logits), self.baseline)
        for other in others:
            found = self.dev_set.onnx_logits(onnx_file, other)
            metrics[other] = {**self.dev_set.scores(found), "agreement": self.dev_set.agreement(found, logits)}
        if quantized and self.args.onnx_format:
            found = self.dev_set.paddle_logits(os.path.join(folder, "int8"), self.args.input_dtype)
            agreement = self.dev_set.agreement(found, logits)
            metrics["paddle_int8"] = {**self.dev_set.scores(found), "agreement": agreement}
            logger.info(f"the ONNX INT8 model agrees with Paddle's on {100 * agreement:.2f}% of the dev set")
        return metrics

    def export(self, name, model, more):
        """An FP32 variant."""
        made_from = {"weights": fingerprint(model), "input_dtype": self.args.input_dtype, **self.context(), **more}

        def write(folder):
            write_model_folder(self.task, model, self.tokenizer, folder, self.args.input_dtype)

        return self.variant(name, made_from, write)

    def adopt(self, name, prefix):
        """An FP32 variant of a static model that is there already: --input_infer_model_path."""
        for suffix in (".pdmodel", ".pdiparams"):
            if not os.path.exists(prefix + suffix):
                raise UserError(
                    f"--input_infer_model_path {prefix}: there is no {prefix}{suffix}; expected the path of a "
                    "static model without its extension"
                )
        with open(prefix + ".pdiparams", "rb") as f:
            weights = hashlib.sha256(f.read()).hexdigest()[:16]

        def write(folder):
            for suffix in (".pdmodel", ".pdiparams"):
                shutil.copyfile(prefix + suffix, os.path.join(folder, f"model{suffix}"))
            write_onnx(self.task, folder)
            save_config_and_tokenizer(self.model, self.tokenizer, folder)

        return self.variant(name, {"weights": weights, **self.context()}, write)

    def context(self):
        """What every variant depends on beside its weights."""
        data_args = self.data_args
        names = "dataset max_seq_length doc_stride max_query_length max_answer_length n_best_size"
        return {name: getattr(data_args, name) for name in names.split()} | {"dev_set": self.dev_set.fingerprint}

    # Pruning

    def prune(self):
        """Trains a supernet from the fine-tuned model; yields (width, its best narrow model)."""
        model = copy.deepcopy(self.model)
        arguments = self.arguments_of_training("dynabert", load_best_model_at_end=False)
        weights = fingerprint(model)
        settings = self.settings_of_training(weights, width_mult_list=self.args.width_mult_list)
        checkpoint = find_checkpoint(arguments, settings)
        if checkpoint is None:  # a checkpoint's weights are in order
            reorder(model, importance(model, self.dev_batches(), self.compute_loss))
        trainer = PruningTrainer(
            model=Supernet(model, self.args.width_mult_list),
            args=arguments,
            task=self.task,
            settings=settings,
            **self.shared_by_trainers(),
        )
        if checkpoint is None and self.args.should_save:
            trainer.forget_best()
        self.run_training(trainer, checkpoint)
        for width_mult in self.args.width_mult_list:
            yield width_mult, trainer.best_model(width_mult, copy.deepcopy(self.model))

    def dev_batches(self):
        """The dev set in batches, with labels; the same for each of several processes."""
        size = self.args.per_device_eval_batch_size
        return [self.data_collator(self.eval_dataset[i : i + size]) for i in range(0, len(self.eval_dataset), size)]

    # Quantization

    def calibrate(self, base, prefix):
        """Post-training quantization: a variant for each of --algo_list, --batch_size_list, --batch_num_list."""
        args = self.args
        source = os.path.join(args.output_dir, base)
        names = []
        for algo in args.algo_list:
            for batch_size in args.batch_size_list:
                for batch_num in args.batch_num_list:
                    settings = {"algo": algo, "batch_size": batch_size, "batch_num": batch_num, "seed": args.seed}
                    options = "weight_quantize_type activation_quantize_type round_type bias_correction onnx_format"
                    settings.update({name: getattr(args, name) for name in options.split()})

                    def write(folder, algo=algo, batch_size=batch_size, batch_num=batch_num):
                        batches = calibration_batches(
                            self.train_dataset, self.data_collator, batch_size, batch_num, args.seed, args.input_dtype
                        )
                        self.write_quantized(folder, os.path.join(source, "model"), batches, algo)
                        save_config_and_tokenizer_of(source, folder)

                    made_from = {**self.made_from_of(base), **settings}
                    name = f"{prefix}{algo}{batch_size}_{batch_num}"
                    names.append(self.variant(name, made_from, write, quantized=True))
        return names

    def write_quantized(self, folder, source, batches, algo):
        """int8.pdmodel by calibration of `source`.pdmodel, and model.onnx with the same scales."""
        target = os.path.join(folder, "int8")
        rounding = adaptive_rounding if self.args.round_type == "adaround" else None
        workarounds.post_training_quantization(source, target, batches, algo, self.args, rounding=rounding)
        quantize_onnx(source + ".onnx", os.path.join(folder, "model.onnx"), workarounds.read_matmul_scales(target))
        if not self.args.onnx_format:
            workarounds.post_training_quantization(source, target, batches, algo, self.args, False, rounding)

    def train_quantized(self, name, model):
        """Quantization-aware training of a model: one variant."""
        arguments = self.arguments_of_training(name, load_best_model_at_end=True)
        weights = fingerprint(model)
        options = "use_pact weight_quantize_type activation_quantize_type moving_rate"
        settings = self.settings_of_training(
            weights, **{option: getattr(self.args, option) for option in options.split()}
        )
        checkpoint = find_checkpoint(arguments, settings)
        trainer = QuantizationAwareTrainer(
            model=copy.deepcopy(model),
            compression_args=self.args,
            args=arguments,
            settings=settings,
            **self.shared_by_trainers(),
        )
        self.run_training(trainer, checkpoint)

        def write(folder):
            trainer.write_int8(self.task, self.tokenizer, folder, self.train_dataset, self.data_collator)

        return self.variant(name, {**settings, **self.context()}, write, quantized=True)

    def quantize_tables(self, name, base):
        """The embedding tables of a variant in INT8 too: another variant."""
        source = os.path.join(self.args.output_dir, base)
        prefix = "int8" if os.path.exists(os.path.join(source, "int8.pdmodel")) else "model"

        def write(folder):
            workarounds.quantize_embeddings(os.path.join(source, prefix), os.path.join(folder, "int8"))
            quantize_onnx(
                os.path.join(source, "model.onnx"), os.path.join(folder, "model.onnx"), None, quantize_tables=True
            )
            save_config_and_tokenizer_of(source, folder)

        return self.variant(name, {**self.made_from_of(base), "embeddings": "int8"}, write, quantized=True)

    # What the trainings have in common

    def made_from_of(self, name):
        metrics = read_metrics(os.path.join(self.args.output_dir, name))
        return metrics["made_from"] if metrics else {}

    def arguments_of_training(self, name, load_best_model_at_end):
        """This command's arguments, for a training with checkpoints in a folder of its own."""
        arguments = copy.copy(self.args)
        arguments.output_dir = os.path.join(self.args.output_dir, "compression", name.replace("/", "-"))
        arguments.do_train = arguments.do_eval = True
        arguments.evaluation_strategy = arguments.save_strategy = IntervalStrategy.STEPS
        arguments.eval_steps = arguments.save_steps
        arguments.load_best_model_at_end = load_best_model_at_end
        arguments.metric_for_best_model = MAIN_SCORE[self.task] if load_best_model_at_end else None
        arguments.greater_is_better = True
        return arguments

    def settings_of_training(self, weights, **more):
        settings = training_settings(self.model_args, self.data_args, self.args, len(self.train_dataset))
        return {**settings, "weights": weights, **more}

    def shared_by_trainers(self):
        return {
            "data_collator": self.data_collator,
            "train_dataset": self.train_dataset,
            "eval_dataset": self.eval_dataset,
            "tokenizer": self.tokenizer,
            "compute_metrics": self.compute_metrics,
            "data_args": self.data_args,
        }

    def run_training(self, trainer, checkpoint):
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        trainer.log_metrics("train", metrics)
        if self.args.world_size > 1:
            paddle.distributed.barrier()  # the first process has written what all read


def fingerprint(model):
    """16 hex digits that change with any weight of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()))
    return digest.hexdigest()[:16]


def save_config_and_tokenizer_of(source, target):
    """Copies what a variant shares with the one that it is made from."""
    for name in os.listdir(source):
        path = os.path.join(source, name)
        if os.path.isfile(path) and name.endswith((".json", ".txt")) and name != "metrics.json":
            shutil.copyfile(path, os.path.join(target, name))
