"""Fine-tunes, evaluates, predicts and exports ERNIE 3.0 on reading comprehension: CMRC2018, or your own.

python run_qa.py --model_name_or_path ernie-3.0-medium-zh --dataset cmrc2018 --output_dir ./best_models \\
    --do_train --do_eval --do_export --config configs/default.yml
"""

import utils  # isort: skip  first, since it sees to what must stand before Paddle

import os

from paddlenlp.transformers import AutoModelForQuestionAnswering

TASK = "QuestionAnswering"


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

    # Features
    pretrained_tokenizer, tokenizer = utils.load_tokenizer(model_args, data_args)
    train_features = eval_features = None
    if training_args.do_train:
        train_features, _ = utils.qa_features(train_examples, tokenizer, data_args, labelled=True)
    if training_args.do_eval:
        features, eval_offsets = utils.qa_features(eval_examples, tokenizer, data_args, labelled=True)
        eval_features, _ = utils.longest_first(features)

    def compute_metrics(output):
        answers = utils.find_answers(eval_examples, eval_features, eval_offsets, *output.predictions, data_args)
        references = [[answer["text"] for answer in e["answers"]] for e in eval_examples]
        return utils.cmrc_scores([a["answer"] for a in answers], references)

    # Model
    model = utils.load_model(
        AutoModelForQuestionAnswering,
        model_args,
        data_args,
        tokenizer,
        labels=[],
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
        compute_metrics=compute_metrics,
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
            {name: metrics[f"eval_{name}"] for name in ("exact_match", "f1")},
            utils.question_blind_share(eval_examples),
        )
        trainer.log_metrics("eval", metrics)
        if training_args.should_save:
            utils.write_json(os.path.join(training_args.output_dir, "metrics.json"), scores)

    # Prediction
    if training_args.do_predict:
        features, offsets = utils.qa_features(test_examples, tokenizer, data_args)
        features, _ = utils.longest_first(features)
        start_logits, end_logits = trainer.predict(features).predictions
        if training_args.should_save:
            results = utils.find_answers(test_examples, features, offsets, start_logits, end_logits, data_args)
            utils.write_predictions(TASK, data_args, training_args.output_dir, test_examples, results)

    # Export
    if training_args.do_export and training_args.should_save:
        folder = os.path.join(model_args.export_model_dir, data_args.dataset, "export")
        utils.export_model(TASK, model, pretrained_tokenizer, folder, scores)


if __name__ == "__main__":
    utils.run(main)
