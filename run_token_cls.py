"""Fine-tunes, evaluates, predicts and exports ERNIE 3.0 on named entities: MSRA_NER, or your own.

python run_token_cls.py --model_name_or_path ernie-3.0-medium-zh --dataset msra_ner --output_dir ./best_models \\
    --do_train --do_eval --do_export --config configs/default.yml
"""

import utils  # isort: skip  first, since it sees to what must stand before Paddle

import os

from paddlenlp.transformers import AutoModelForTokenClassification

TASK = "TokenClassification"


def main():
    # Arguments: the command line over the YAML file over the defaults
    model_args, data_args, training_args = utils.parse_arguments(TASK)
    utils.check_writable(training_args.output_dir)

    # Data
    train_examples = eval_examples = test_examples = None
    if training_args.do_train:
        train_examples = utils.load_examples(TASK, data_args, "train")
    if training_args.do_eval:
        eval_examples = utils.load_examples(TASK, data_args, "dev")
    if training_args.do_predict:
        test_examples = utils.load_examples(TASK, data_args, "test")
    labels = utils.find_labels(TASK, data_args.dataset, train_examples, model_args)

    # Features
    pretrained_tokenizer, tokenizer = utils.load_tokenizer(model_args, data_args)

    def features_of(examples):
        label2id = utils.label_ids(examples, labels, "tags")
        return utils.token_cls_features(examples, tokenizer, data_args, label2id)

    train_features = features_of(train_examples) if train_examples else None
    eval_features = utils.longest_first(features_of(eval_examples))[0] if eval_examples else None

    # Model
    model = utils.load_model(
        AutoModelForTokenClassification,
        model_args,
        data_args,
        tokenizer,
        labels,
        fine_tuned=not training_args.do_train,
    )
    settings = utils.training_settings(model_args, data_args, training_args, len(train_examples or ()))
    trainer = utils.ErnieTrainer(
        model=model,
        args=training_args,
        data_collator=utils.Collator(tokenizer, data_args.dynamic_max_length),
        train_dataset=train_features,
        eval_dataset=eval_features,
        tokenizer=pretrained_tokenizer,
        compute_metrics=lambda output: utils.entity_scores(output.predictions, output.label_ids, labels),
        data_args=data_args,
        settings=settings,
    )

    # Training, from the last checkpoint where there is one
    if training_args.do_train:
        checkpoint = utils.find_checkpoint(training_args, settings)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
        if training_args.should_save:
            utils.save_model(model, pretrained_tokenizer, training_args.output_dir)

    # Evaluation
    scores = utils.read_metrics(training_args.output_dir if training_args.do_train else model_args.model_name_or_path)
    if training_args.do_eval:
        metrics = trainer.evaluate_final()
        scores = utils.dev_metrics(
            data_args.dataset,
            len(eval_examples),
            {name: metrics[f"eval_{name}"] for name in ("precision", "recall", "f1")},
            {"f1_of_all_O": 0.0},
        )
        trainer.log_metrics("eval", metrics)
        if training_args.should_save:
            utils.write_json(os.path.join(training_args.output_dir, "metrics.json"), scores)

    # Prediction
    if training_args.do_predict:
        features = utils.token_cls_features(test_examples, tokenizer, data_args)
        sorted_features, restore = utils.longest_first(features)
        logits = trainer.predict(sorted_features).predictions[restore]
        if training_args.should_save:
            results = utils.find_entities(test_examples, features, logits, labels)
            utils.write_predictions(TASK, data_args, training_args.output_dir, test_examples, results)

    # Export
    if training_args.do_export and training_args.should_save:
        folder = os.path.join(model_args.export_model_dir, data_args.dataset, "export")
        utils.export_model(TASK, model, pretrained_tokenizer, folder, scores)


if __name__ == "__main__":
    utils.run(main)
