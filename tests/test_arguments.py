"""Precedence of arguments, and what the YAML file may hold."""

import dataclasses
import json
import re
import shlex

import pytest
from conftest import ROOT
from ernie_predictor.commandline import new_parser
from paddlenlp.trainer import TrainingArguments

from ernie.argument_parser import ArgumentParser
from ernie.argument_table import NAMES, TABLE, CompressionArguments, DataArguments, ModelArguments
from ernie.arguments import parse_arguments
from ernie.errors import UsageError, UserError
from ernie.tasks import DATA_SETS, SEQ_CLS, TASKS

DEFAULT = ROOT / "configs" / "default.yml"
HEAD = SEQ_CLS.head
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("*.md", "docs/*.md", "examples/*.md", "configs/*.md", "benchmarks/*.md", "deploy/**/*.md")
    for path in ROOT.glob(folder)
    if re.search(r"(run|compress)_\w+\.py +--", path.read_text(encoding="utf-8"))
)


def parse(tmp_path, *more, task=SEQ_CLS, dataset="tnews", config=DEFAULT):
    argv = ["--model_name_or_path", "m", "--dataset", dataset, "--output_dir", str(tmp_path), "--do_predict"]
    argv += ["--config", str(config)] if config else []
    return parse_arguments(task, argv=[*argv, *map(str, more)])


# The published values: learning rate, epochs, longest input, batch sizes.
PUBLISHED = {
    "afqmc": (3e-5, 1, 128, 32, 64),
    "tnews": (5e-5, 3, 128, 32, 32),
    "iflytek": (5e-5, 3, 128, 16, 16),
    "ocnli": (5e-5, 6, 128, 64, 64),
    "cmnli": (2e-5, 4, 128, 32, 32),
    "cluewsc2020": (3e-5, 50, 128, 16, 16),
    "csl": (5e-5, 8, 256, 64, 64),
    "msra_ner": (5e-5, 1, 128, 8, 16),
    "cmrc2018": (5e-5, 1, 512, 12, 12),
}


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_hyperparameters(tmp_path, dataset):
    _, data, training = parse(tmp_path, task=DATA_SETS[dataset].task, dataset=dataset)
    assert PUBLISHED[dataset] == (
        training.learning_rate,
        training.num_train_epochs,
        data.max_seq_length,
        training.per_device_train_batch_size,
        training.per_device_eval_batch_size,
    )
    assert training.weight_decay == 0.01


def test_a_data_set_named_with_a_slash_is_the_same(tmp_path):
    """As a shell completes it."""
    _, data, training = parse(tmp_path, dataset="tnews/")
    assert (data.dataset, training.output_dir) == ("tnews", f"{tmp_path}/tnews")
    assert training.per_device_train_batch_size == PUBLISHED["tnews"][3]
    (tmp_path / "own.yml").write_text(f"DefaultArgs:\n  dataset: ./tnews/\n{HEAD}:\n  tnews: {{seed: 5}}\n")
    argv = ["--model_name_or_path", "m", "--config", f"{tmp_path}/own.yml", "--output_dir", str(tmp_path), "--do_eval"]
    _, data, training = parse_arguments(SEQ_CLS, argv=argv)
    assert (data.dataset, training.seed) == ("tnews", 5)


def test_a_fine_tuned_model_keeps_its_lengths_unless_others_are_named(tmp_path):
    """Scored, exported or compressed, it reads texts as it was trained."""
    model, lengths = tmp_path / "model", {"doc_stride": 32, "max_answer_length": 20}
    model.mkdir()

    def found(*more, arguments_class=TrainingArguments, model=model):
        argv = ["--model_name_or_path", str(model), "--dataset", "cmrc2018", "--output_dir", str(tmp_path), *more]
        data = parse_arguments(TASKS["qa"], arguments_class, argv)[1]
        return data.max_seq_length, data.doc_stride, data.max_query_length, data.max_answer_length

    def make(architecture, length=256):
        params = {"question-answering": lengths}
        config = {"architectures": [architecture], "task_specific_params": params, "max_position_embeddings": 512}
        (model / "config.json").write_text(json.dumps(config))
        (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))

    make("ErnieForQuestionAnswering")
    assert found("--do_export") == found("--do_eval", "--do_predict") == (256, 32, 64, 20)
    assert found(arguments_class=CompressionArguments) == (256, 32, 64, 20)
    assert found("--do_export", "--max_seq_length", "128", "--doc_str", "128") == (128, 128, 64, 20)  # the defaults
    (tmp_path / "own.yml").write_text("DefaultArgs:\n  max_answer_length: 50\n  max_seq_length: 128\n")
    assert found("--do_export", "--config", f"{tmp_path}/own.yml") == (128, 32, 64, 50)
    # Training, and where the folder is none of a fine-tuned model or says what can't be.
    assert found("--do_train", "--do_export") == (128, 128, 64, 50)
    assert found("--do_export", model=tmp_path / "none") == (128, 128, 64, 50)
    make("ErnieModel")
    assert found("--do_export") == (128, 128, 64, 50)
    make("ErnieForQuestionAnswering", length=10**30)
    assert found("--do_export") == (512, 32, 64, 20)


def test_command_line_over_yaml_over_defaults(tmp_path):
    _, data, training = parse(tmp_path, "--per_device_train_batch_size", 7, "--max_seq_length=64")
    assert (training.per_device_train_batch_size, data.max_seq_length) == (7, 64)
    assert training.per_device_eval_batch_size == 32  # the YAML file's
    _, data, training = parse(tmp_path, config=None)
    assert (training.per_device_train_batch_size, training.learning_rate) == (8, 5e-5)  # PaddleNLP's own


def test_every_kind_of_value_of_the_yaml_file_is_applied(tmp_path):
    config = tmp_path / "own.yml"
    config.write_text(
        "DefaultArgs:\n  learning_rate: 1e-4\n  do_train: yes\n  fp16: false\n  dynamic_max_length: [32, 128]\n"
        "  group_by_length: false\n  disable_tqdm: true\n"
        f"  output_dir: {tmp_path}/models\n  width_mult_list: ['3/4']\n  seed:\n"
        "SequenceClassification:\n  tnews:\n    learning_rate: 2e-4\n    warmup_steps: 12\n"
        "    lr_scheduler_type: cosine\n"
    )
    argv = ["--model_name_or_path", "m", "--dataset", "tnews", "--config", str(config)]
    _, data, training = parse_arguments(SEQ_CLS, argv=argv)
    assert training.learning_rate == 2e-4  # the block over DefaultArgs; YAML reads 2e-4 as a text
    assert training.do_train is True and training.fp16 is False and training.warmup_steps == 12
    assert training.lr_scheduler_type.value == "cosine"
    assert data.dynamic_max_length == [32, 128] and data.group_by_length is False and training.disable_tqdm is True
    assert training.output_dir == f"{tmp_path}/models/tnews"
    assert training.seed == 42  # no value: the default stays


def test_folders_and_evaluation(tmp_path):
    model, _, training = parse(tmp_path, "--do_train", "--do_eval", "--save_steps", 30)
    assert training.output_dir == f"{tmp_path}/tnews" and training.logging_dir.startswith(f"{tmp_path}/tnews")
    assert model.export_model_dir == str(tmp_path)
    assert training.eval_steps == 30 and training.load_best_model_at_end
    assert training.metric_for_best_model == "accuracy" and training.greater_is_better
    _, _, training = parse(tmp_path, "--do_train", "--do_eval", "--save_strategy", "epoch")
    assert training.evaluation_strategy.value == "epoch"
    _, _, training = parse(tmp_path, "--output_dir", "./best_models/")
    assert training.output_dir == "best_models/tnews"
    _, _, training = parse(tmp_path, "--do_train")
    assert not training.load_best_model_at_end and training.evaluation_strategy.value == "no"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--lerning_rate", "1"], "unknown argument --lerning_rate; did you mean --learning_rate?"),
        (["--learning_rate", "fast"], "--learning_rate: invalid float value: 'fast'"),
        (["--learning_rate", "nan"], "--learning_rate nan: must be 0 or more"),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size 0: must be 1 or more"),
        (["--max_seq_length", "2"], "--max_seq_length 2: must be 8 or more"),
        (["--dynamic_max_length", "0", "128"], "--dynamic_max_length 0: must be 1 or more"),
        (["--device", "abacus"], "--device abacus"),
        (["--learning_rate", "inf"], "--learning_rate inf: must be 0 or more, and finite"),
        (["--eval_steps", "0"], "--eval_steps 0: must be 1 or more"),
        (["--save_total_limit", "0"], "--save_total_limit 0: must be 1 or more"),
        (["--dataloader_num_workers", "-1"], "--dataloader_num_workers -1: must be 0 or more"),
        (["--seed", "4294967296"], "--seed 4294967296"),
        (["--fp16", "--device", "cpu"], "--fp16 needs a GPU"),
        (["--bf16", "--device", "cpu"], "--bf16 needs a GPU"),
        (["--fp16_opt_level", "O9"], "--fp16_opt_level O9: none of O0, O1, O2"),
        (["--lr_scheduler_type", "polynomial", "--lr_end", "1"], "--lr_end 1"),
        (["--do_train", "--num_train_epochs", "0"], "--num_train_epochs 0"),
        (["--do_train", "--max_steps", "0"], "--max_steps 0: would set no limit"),
        (["--metric_for_best_model", "f1"], "--metric_for_best_model f1: none of accuracy, loss"),
        (["--metric_for_best_model", "eval_acuracy"], "did you mean accuracy?"),
        (["--report_to", "wand"], "--report_to wand: none of"),
        (["--report_to", "none", "visualdl"], "none stands alone"),
        (["--do_predict", "false"], "nothing to do: add one or more of --do_train"),
        (["--resume_from_checkpoint", "true", "--overwrite_output_dir"], "--overwrite_output_dir starts again"),
        (["--dynamic_max_length", "16", "64"], "must hold --max_seq_length 128"),
        (["--warmup_ratio", "3"], "warmup_ratio must lie in range"),
        (["--save_strategy", "sometimes"], "--save_strategy sometimes: none of no, steps, epoch"),
        (["--lr_scheduler_type", "cosin"], "did you mean cosine?"),
        (["stray"], "unknown argument stray"),
        (["--dataset", "msra_ner"], "use run_token_cls.py"),
        (["--dataset", "tnew"], "did you mean tnews?"),
    ],
)
def test_wrong_arguments(tmp_path, more, says):
    with pytest.raises(UsageError) as error:
        parse(tmp_path, *more)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DefaultArgs:\n  learning_rte: 1\n", "unknown argument learning_rte; did you mean learning_rate?"),
        (f"{HEAD}:\n  afqmc:\n    epochs: 1\n", f"{HEAD}: afqmc: unknown argument epochs"),
        ("SequenceClasification: {}\n", "unknown block 'SequenceClasification'; did you mean SequenceClassification?"),
        ("DefaultArgs:\n  past_index: 0\n", "DefaultArgs: past_index has no use here"),
        (f"{HEAD}:\n  afqmc:\n    fp16_full_eval: yes\n", f"{HEAD}: afqmc: fp16_full_eval has no use here"),
        ("DefaultArgs:\n  learning_rate: fast\n", "DefaultArgs: argument --learning_rate: invalid float value: 'fast'"),
        ("DefaultArgs:\n  save_steps: 0\n", "DefaultArgs: --save_steps 0: must be 1 or more"),
        ("DefaultArgs: [1\n", "is not YAML"),
        (f"{HEAD}:\n  afqmc: {{}}\n\n{HEAD}:\n  mood: {{}}\n", f"`{HEAD}` stands twice, in lines 1 and 4"),
        (f"{HEAD}:\n  mood:\n    seed: 1\n    'seed': 2\n", "`seed` stands twice, in lines 3 and 4"),
        ("- 1\n", "expected the blocks"),
        ("DefaultArgs: 3\n", "expected `argument: value` lines"),
        (f"{HEAD}: [afqmc]\n", f"{HEAD}: expected a block for each data set, got ['afqmc']"),
        (f"{HEAD}:\n  tnews: [1]\n", f"{HEAD}: tnews: expected `argument: value` lines, got [1]"),
        (f"{HEAD}:\n  tnews:\n    dataset: afqmc\n", "`dataset` decides which block is read"),
        (
            "DefaultArgs:\n  learning_rate: [1e-5, 5e-5]\n",
            "learning_rate: ['1e-5', '5e-5'] does not fit, expected one value",
        ),
        ("DefaultArgs:\n  learning_rate: []\n", "learning_rate: [] does not fit, expected one value"),
        ("DefaultArgs:\n  dynamic_max_length: []\n", "dynamic_max_length: [] does not fit, expected a list"),
        ("DefaultArgs:\n  seed: {a: 1}\n", "seed: {'a': 1} does not fit, expected one value"),
        ("DefaultArgs:\n  save_strategy: yes\n", "--save_strategy True: none of no, steps, epoch"),
    ],
)
def test_wrong_yaml(tmp_path, text, says):
    (tmp_path / "own.yml").write_text(text)
    with pytest.raises(UsageError) as error:
        parse(tmp_path, config=tmp_path / "own.yml")
    assert says in str(error.value)
    assert str(tmp_path / "own.yml") in str(error.value)


def test_every_argument_of_paddlenlp_is_taken_or_refused(tmp_path):
    """In one sentence, the same on the command line and in the file, which names the nearest that works."""
    config = tmp_path / "own.yml"
    refused = {f.name for f in dataclasses.fields(CompressionArguments)} - set(NAMES)
    assert len(refused) == 50 and {"past_index", "no_cuda", "optim", "sharding", "label_names"} < refused
    for name in refused:
        config.write_text(f"DefaultArgs:\n  {name}: 1\n")
        for more, path in ((["--" + name, "1"], DEFAULT), ([f"--{name}=1"], None), ([], config)):
            with pytest.raises(UsageError, match=f"{name} has no use here") as error:
                parse(tmp_path, *more, config=path)
            assert len(str(error.value).splitlines()) <= 2
    config.write_text("DefaultArgs:\n  no_cuda: true\n")
    with pytest.raises(UsageError, match="no_cuda has no use here, although PaddleNLP has it; use device"):
        parse(tmp_path, config=config)
    with pytest.raises(UsageError, match=r"--max_evaluate_steps has no use here, .*; use --eval_steps"):
        parse(tmp_path, "--max_evaluate_steps", "3")
    mentioned = {name for rows in TABLE.values() for row in rows for name in row.instead_of.split()}
    assert mentioned < refused


def test_arguments_of_other_scripts(tmp_path):
    """Refused on the command line, where they would do nothing; one file serves all scripts."""
    argv = ["--model_name_or_path", "m", "--dataset", "tnews", "--output_dir", str(tmp_path)]
    for name, scripts in (("do_train", "run_*.py"), ("eval_steps", "run_*.py"), ("n_best_size", "*_qa.py")):
        with pytest.raises(UsageError, match=re.escape(f"--{name} is an argument of {scripts}")):
            parse_arguments(SEQ_CLS, CompressionArguments, [*argv, f"--{name}=1"])
    for name, scripts in (("max_drop", "compress_*.py"), ("doc_stride", "*_token_cls.py, *_qa.py")):
        with pytest.raises(UsageError, match=re.escape(f"--{name} is an argument of {scripts}")):
            parse(tmp_path, f"--{name}", 1)
    config = tmp_path / "own.yml"
    config.write_text(
        "DefaultArgs:\n  do_train: true\n  evaluation_strategy: epoch\n  max_drop: 2\n  n_best_size: 3\n  seed: 9\n"
    )
    _, _, args = parse_arguments(SEQ_CLS, CompressionArguments, [*argv, "--config", str(config), "--strategy", "ptq"])
    assert (args.max_drop, args.seed, args.do_train, args.evaluation_strategy.value) == (2, 9, False, "no")
    _, data, args = parse(tmp_path, config=config)
    assert args.do_train and args.evaluation_strategy.value == "epoch" and args.seed == 9 and data.n_best_size == 20


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents(document):
    """Their arguments are those of the script."""
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    for script, arguments in re.findall(r"((?:run|compress)_(?:seq_cls|token_cls|qa)\.py) +(--[^\n`|#]*)", text):
        task = next(task for task in TASKS.values() if script in (task.script, task.compress_script))
        arguments_class = CompressionArguments if script.startswith("compress") else TrainingArguments
        parser = ArgumentParser(task, script, (ModelArguments, DataArguments, arguments_class), "", {})
        assert parser.read(shlex.split(arguments, comments=True))


def test_the_file_may_name_the_data_set(tmp_path):
    """Its block is read then too, and the command line still wins."""
    config = tmp_path / "own.yml"
    config.write_text(
        f"DefaultArgs:\n  dataset: tnews\n  output_dir: {tmp_path}\n{HEAD}:\n  tnews:\n    learning_rate: 9e-5\n"
        "  afqmc:\n    learning_rate: 7e-5\n"
    )
    argv = ["--model_name_or_path", "m", "--config", str(config), "--do_predict"]
    for more, dataset, rate in (([], "tnews", 9e-5), (["--dataset", "afqmc"], "afqmc", 7e-5)):
        _, data, training = parse_arguments(SEQ_CLS, argv=[*argv, *more])
        assert (data.dataset, training.learning_rate) == (dataset, rate)


def test_blocks_that_are_never_read_are_named(tmp_path, caplog):
    (tmp_path / "data" / "mood").mkdir(parents=True)
    config = tmp_path / "own.yml"
    config.write_text(
        f"{HEAD}:\n  tnew: {{seed: 1}}\n  mood: {{seed: 1}}\n  msra_ner: {{seed: 1}}\n  afqmc: {{seed: 1}}\n"
    )
    parse(tmp_path, config=config)
    assert f"no data set is called as the block {HEAD}: tnew; did you mean tnews?" in caplog.text
    assert "msra_ner belongs under TokenClassification" in caplog.text
    assert "mood" not in caplog.text and "afqmc" not in caplog.text
    caplog.clear()
    config.write_text(f"{HEAD}:\n  mood: {{seed: 1}}\n  moods: {{seed: 1}}\n")
    parse(tmp_path, "--data_dir", tmp_path / "data", config=config)
    assert "the block SequenceClassification: moods; did you mean mood?" in caplog.text
    assert caplog.text.count("no data set is called") == 1


# ------------------------------------------------------------------------------------------- abbreviations


@pytest.mark.parametrize("compress", [False, True])
def test_an_abbreviation_stands_for_the_one_argument_that_begins_so(tmp_path, compress):
    """As in PaddleNLP, whose own commands for ERNIE 3.0 say --save_step; also for what is read before the others."""
    (tmp_path / "data" / "mood").mkdir(parents=True)
    config = tmp_path / "own.yml"
    config.write_text(f"{HEAD}:\n  mood: {{learning_rate: 9e-5}}\n")
    argv = ["--model", "m", "--datas=mood", "--data_d", str(tmp_path / "data"), "--output", str(tmp_path)]
    argv += [] if compress else ["--do_p"]
    argv += ["--conf", str(config), "--save_step=2", "--per_device_train", "3", "--max_seq", "64"]
    arguments_class = CompressionArguments if compress else TrainingArguments
    model, data, args = parse_arguments(SEQ_CLS, arguments_class, argv)
    assert (model.model_name_or_path, data.dataset, data.data_dir) == ("m", "mood", str(tmp_path / "data"))
    assert (args.save_steps, args.per_device_train_batch_size, data.max_seq_length) == (2, 3, 64)
    assert args.learning_rate == 9e-5  # the YAML file was found and its block read


@pytest.mark.parametrize(
    ("flag", "candidates"),
    [
        ("--data=x", ["--dataset", "--data_dir", "--dataloader_num_workers"]),
        ("--save_st", ["--save_steps", "--save_strategy"]),
        ("--do=1", ["--do_train", "--do_predict"]),
    ],
)
def test_an_ambiguous_abbreviation_names_its_candidates(tmp_path, flag, candidates):
    with pytest.raises(UsageError) as error:
        parse(tmp_path, flag)
    assert all(name in str(error.value) for name in candidates) and len(str(error.value).splitlines()) <= 2


def test_the_predictors_flags_can_be_abbreviated(capsys):
    args = new_parser("").parse_args(["--model", "best", "--batch=4", "--max", "64"])
    assert (args.model_path, args.batch_size, args.max_seq_length) == ("best", 4, 64)
    with pytest.raises(SystemExit) as stopped:
        new_parser("").parse_args(["--model", "best", "--b", "4"])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and "--batch_size" in message and "--benchmark" in message


# ------------------------------------------------------------------------------- scores and checkpoints


@pytest.mark.parametrize(
    ("more", "evaluation", "best", "warns"),
    [
        ([], "steps", True, None),
        (["--save_strategy", "epoch"], "epoch", True, None),
        (["--evaluation_strategy", "no"], "no", False, "--evaluation_strategy no"),
        (["--save_strategy", "no"], "steps", False, "--save_strategy no"),
        (["--evaluation_strategy", "epoch"], "epoch", False, "--save_strategy steps and --evaluation_strategy epoch"),
        (["--eval_steps", "3"], "steps", False, "--save_steps 500 must be a multiple of --eval_steps 3"),
        (["--eval_steps", "250"], "steps", True, None),
        (["--load_best_model_at_end", "false"], "steps", False, None),
    ],
)
def test_what_the_user_says_of_evaluation_is_kept(tmp_path, caplog, more, evaluation, best, warns):
    _, _, args = parse(tmp_path, "--do_train", "--do_eval", *more)
    assert args.do_eval and args.evaluation_strategy.value == evaluation and args.load_best_model_at_end == best
    assert ("the last checkpoint is the result" in caplog.text) == (warns is not None) and (warns or "") in caplog.text
    # Who asks for the best checkpoint, and makes that impossible, is told by what.
    if warns:
        with pytest.raises(UsageError, match="--load_best_model_at_end: ") as error:
            parse(tmp_path, "--do_train", "--do_eval", *more, "--load_best_model_at_end", "true")
        assert warns in str(error.value)


def test_evaluation_in_the_yaml_file(tmp_path):
    config = tmp_path / "own.yml"
    config.write_text("DefaultArgs:\n  evaluation_strategy: no\n  save_strategy: epoch\n")  # YAML reads no as False
    _, _, args = parse(tmp_path, "--do_train", "--do_eval", config=config)
    assert (args.evaluation_strategy.value, args.save_strategy.value) == ("no", "epoch") and args.do_eval


def test_the_metric_with_and_without_its_prefix(tmp_path):
    for metric, greater in (("accuracy", True), ("eval_accuracy", True), ("loss", False), ("eval_loss", False)):
        _, _, args = parse(tmp_path, "--do_train", "--do_eval", "--metric_for_best_model", metric)
        assert args.load_best_model_at_end and args.metric_for_best_model == metric
        assert args.greater_is_better == greater


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_reports_to_what_is_not_installed(tmp_path, monkeypatch, name):
    monkeypatch.setattr("ernie.argument_checks._can_report", lambda found: found != name)
    with pytest.raises(UserError, match=f"--report_to {name}.*pip install"):
        parse(tmp_path, "--report_to", name)
    for value, expected in (("none", []), ("visualdl", ["visualdl"])):
        assert parse(tmp_path, "--report_to", value)[2].report_to == expected
    assert "visualdl" in parse(tmp_path, "--report_to", "all")[2].report_to


def test_epochs_of_a_compression(tmp_path):
    argv = ["--model_name_or_path", "m", "--dataset", "tnews", "--output_dir", str(tmp_path)]
    with pytest.raises(UsageError, match="--num_train_epochs 0 would train nothing"):
        parse_arguments(SEQ_CLS, CompressionArguments, [*argv, "--num_train_epochs", "0"])
    parse_arguments(SEQ_CLS, CompressionArguments, [*argv, "--num_train_epochs", "0", "--strategy", "ptq"])


@pytest.mark.parametrize("dataset", ["afqmc", "msra_ner", "cmrc2018"])
def test_the_published_commands_with_an_abbreviation(dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = (
        f"--model_name_or_path ernie-3.0-medium-zh --dataset {dataset} --output_dir ./best_models "
        f"--export_model_dir best_models/ --do_train --do_eval --do_export --config={DEFAULT} --save_step=2"
    )
    model, _, training = parse_arguments(DATA_SETS[dataset].task, argv=command.split())
    assert (training.save_steps, training.eval_steps, training.load_best_model_at_end) == (2, 2, True)
    assert (model.export_model_dir, training.output_dir) == ("best_models/", f"best_models/{dataset}")
