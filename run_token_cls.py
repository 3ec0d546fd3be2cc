"""Fine-tunes, evaluates, predicts and exports ERNIE 3.0 for named entities: MSRA_NER, or your own.

python run_token_cls.py --model_name_or_path ernie-3.0-medium-zh --dataset msra_ner \\
    --output_dir ./best_models --do_train --do_eval --do_export --config configs/default.yml
python run_token_cls.py --model_name_or_path ernie-3.0-nano-zh --data_dir data --dataset people \\
    --output_dir ./best_models --do_train --do_eval --do_export
"""

import utils  # isort: skip  first: it prepares what must come before Paddle

import os

TASK = utils.TASKS["token_cls"]


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
    tokenizer, processor = utils.load_processor(TASK, model_args, data_args, labels)
    train = utils.token_cls_features(processor, train, labels)
    dev = utils.token_cls_features(processor, dev, labels)
    test = utils.token_cls_features(processor, test)

    # Checks: what would fail in training, or train nothing
    utils.check_training(TASK, training_args, train, labels)

    # Model
    model = utils.load_model(TASK, model_args, data_args, processor, labels, fine_tuned=not training_args.do_train)
    trainer = utils.ErnieTrainer(
        TASK,
        model,
        training_args,
        data_args,
        train,
        dev,
        tokenizer,
        processor,
        compute_metrics=lambda output: utils.entity_scores(dev.answers(output.predictions), dev.gold),
    )

    # Training, from the last checkpoint if there is one
    if training_args.do_train:
        trainer.fine_tune(model_args)
    else:
        utils.write_settings(model_args, data_args, training_args, replace=False)

    # Evaluation
    scores = utils.read_metrics(training_args.output_dir if training_args.do_train else model_args.model_name_or_path)
    if training_args.do_eval:
        scores = trainer.score({"f1_of_all_O": 0.0}, model_args)

    # Prediction
    if training_args.do_predict:
        answers = trainer.answer(test)
        if training_args.should_save:
            utils.write_predictions(TASK, data_args, training_args.output_dir, test, answers)

    # Export
    if training_args.do_export and training_args.should_save:
        utils.export_model(TASK, model, tokenizer, os.path.join(export_dir, "export"), scores)


if __name__ == "__main__":
    utils.run(main)
