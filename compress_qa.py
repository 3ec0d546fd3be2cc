"""Prunes and quantizes what run_qa.py fine-tuned, and measures every variant on the dev set.

python compress_qa.py --model_name_or_path best_models/cmrc2018 --dataset cmrc2018 --config configs/default.yml
python compress_qa.py --model_name_or_path best_models/manual --data_dir data --dataset manual --strategy ptq
"""

import utils  # isort: skip  first: it prepares what must come before Paddle

TASK = utils.TASKS["qa"]


def main():
    # Arguments: the command line over the YAML file over the defaults
    model_args, data_args, compression_args = utils.parse_arguments(TASK, utils.CompressionArguments, about=__doc__)
    utils.check_writable(compression_args.output_dir)
    utils.check_model(TASK, model_args, data_args, fine_tuned=True)

    # Data: calibration and pruning learn from train, every variant is scored on dev
    train, dev, _ = utils.load_splits(TASK, data_args, compression_args)
    labels = utils.find_labels(TASK, data_args, None, model_args)

    # Features: tokenized, and read back as answers, as in deployment
    tokenizer, task = utils.load_task(TASK, model_args, data_args, labels)
    train = utils.make_features(task, train)
    dev = utils.make_features(task, dev)

    # Checks: what would fail in training, or train nothing
    utils.check_training(compression_args, train)

    # Model
    model = utils.load_model(task, model_args, data_args, fine_tuned=True)
    utils.write_settings(model_args, data_args, compression_args)
    compression = utils.Compression(task, model, compression_args, data_args, model_args, train, dev, tokenizer)

    # Compression: the plan is printed, then every variant is made, scored and timed; a killed run is resumed
    compression.compress()


if __name__ == "__main__":
    utils.run(main)
