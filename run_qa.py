"""Fine-tunes, evaluates, predicts and exports ERNIE 3.0 for reading comprehension: CMRC2018, or your own.

python run_qa.py --model_name_or_path ernie-3.0-medium-zh --dataset cmrc2018 \\
    --output_dir ./best_models --do_train --do_eval --do_export --config configs/default.yml
python run_qa.py --model_name_or_path ernie-3.0-nano-zh --data_dir data --dataset manual \\
    --output_dir ./best_models --do_train --do_eval --do_export
"""

import utils  # isort: skip  first: it prepares what must come before Paddle

import os

TASK = utils.TASKS["qa"]


def main():
    # Arguments: the command line over the YAML file over the defaults
    model_args, data_args, training_args = utils.parse_arguments(TASK, about=__doc__)
    utils.check_writable(training_args.output_dir)
    export_dir = os.path.join(model_args.export_model_dir, data_args.dataset)
    if training_args.do_export:
        utils.check_replaceable(os.path.join(export_dir, "export"), "--export_model_dir")
    utils.check_model(TASK, model_args, data_args, fine_tuned=not training_args.do_train)

    # Data: the splits that the steps below need, the others None
    train, dev, test = utils.load_splits(TASK, data_args, training_args)
    labels = utils.find_labels(TASK, data_args, train, model_args)

    # Features: tokenized, and read back as answers, as in deployment
    tokenizer, task = utils.load_task(TASK, model_args, data_args, labels)
    train = utils.make_features(task, train)
    dev = utils.make_features(task, dev)
    test = utils.make_features(task, test, labelled=False)

    # Checks: what would fail in training, or train nothing
    utils.check_training(training_args, train)

    # Model
    model = utils.load_model(task, model_args, data_args, fine_tuned=not training_args.do_train)
    trainer = utils.ErnieTrainer(task, model, training_args, data_args, train, dev, tokenizer)

    # Training, from the last checkpoint if there is one
    if training_args.do_train:
        trainer.fine_tune(model_args)
    else:
        utils.write_settings(model_args, data_args, training_args, replace=False)

    # Evaluation
    scores = utils.read_metrics(training_args.output_dir if training_args.do_train else model_args.model_name_or_path)
    if training_args.do_eval:
        scores = trainer.score(model_args)

    # Prediction
    if training_args.do_predict:
        answers = trainer.answer(test)
        if training_args.should_save:
            utils.write_predictions(data_args, training_args.output_dir, test, answers)

    # Export
    if training_args.do_export and training_args.should_save:
        utils.export_model(task, model, tokenizer, os.path.join(export_dir, "export"), scores)


if __name__ == "__main__":
    utils.run(main)
