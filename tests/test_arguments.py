"""Precedence of arguments, and what the YAML file may hold."""

import pytest
from conftest import ROOT, call

from ernie.arguments import parse_arguments
from ernie.errors import UsageError
from ernie.tasks import DATA_SETS, SEQ_CLS

DEFAULT = ROOT / "configs" / "default.yml"
HEAD = SEQ_CLS.head


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
        f"  output_dir: {tmp_path}/models\n  width_mult_list: ['3/4']\n  seed:\n"
        "SequenceClassification:\n  tnews:\n    learning_rate: 2e-4\n    warmup_steps: 12\n"
        "    lr_scheduler_type: cosine\n"
    )
    argv = ["--model_name_or_path", "m", "--dataset", "tnews", "--config", str(config)]
    _, data, training = parse_arguments(SEQ_CLS, argv=argv)
    assert training.learning_rate == 2e-4  # the block over DefaultArgs; YAML reads 2e-4 as a text
    assert training.do_train is True and training.fp16 is False and training.warmup_steps == 12
    assert training.lr_scheduler_type.value == "cosine"
    assert data.dynamic_max_length == [32, 128]
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
        (["--device", "abacus"], "--device abacus"),
        (["--fp16", "--bf16"], "At most one of fp16 and bf16"),
        (["--dynamic_max_length", "16", "64"], "must hold --max_seq_length 128"),
        (["--warmup_ratio", "3"], "warmup_ratio must lie in range"),
        (["--save_strategy", "sometimes"], "sometimes"),
        (["stray"], "unknown argument stray"),
        (["--dataset", "msra_ner"], "use run_token_cls.py"),
        (["--dataset", "tnew"], "did you mean tnews?"),
    ],
)
def test_wrong_arguments(tmp_path, more, says):
    with pytest.raises(UsageError, match="") as error:
        parse(tmp_path, *more)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("DefaultArgs:\n  learning_rte: 1\n", "DefaultArgs: unknown key 'learning_rte'; did you mean learning_rate?"),
        (f"{HEAD}:\n  afqmc:\n    epochs: 1\n", f"{HEAD}: afqmc: unknown key 'epochs'"),
        ("SequenceClasification: {}\n", "unknown block 'SequenceClasification'; did you mean SequenceClassification?"),
        ("DefaultArgs:\n  learning_rate: fast\n", "DefaultArgs: learning_rate: 'fast' does not fit"),
        ("DefaultArgs: [1\n", "is not YAML"),
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
    ],
)
def test_wrong_yaml(tmp_path, text, says):
    (tmp_path / "own.yml").write_text(text)
    with pytest.raises(UsageError) as error:
        parse(tmp_path, config=tmp_path / "own.yml")
    assert says in str(error.value)
    assert str(tmp_path / "own.yml") in str(error.value)


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


@pytest.mark.parametrize("script", ["run_seq_cls", "run_token_cls", "run_qa"])
@pytest.mark.parametrize("prefix", ["run_", "compress_"])
def test_help_is_printed(script, prefix, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(script.replace("run_", prefix), "--help")
    assert stopped.value.code == 0
    assert "--max_seq_length" in capsys.readouterr().out
