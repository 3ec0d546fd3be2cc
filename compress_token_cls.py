"""Prunes and quantizes what run_token_cls.py fine-tuned, and measures every variant on the dev set.

python compress_token_cls.py --model_name_or_path best_models/msra_ner/ --dataset msra_ner \\
    --output_dir ./best_models/msra_ner --config configs/default.yml
"""

import utils  # isort: skip  first, since it sees to what must stand before Paddle

from paddlenlp.transformers import AutoModelForTokenClassification

TASK = "TokenClassification"


def main():
    # Arguments: the command line over the YAML file over the defaults
    model_args, data_args, compression_args = utils.parse_arguments(TASK, utils.CompressionArguments)
    utils.check_writable(compression_args.output_dir)

    # Data
    train_examples = utils.load_examples(TASK, data_args, "train")
    eval_examples = utils.load_examples(TASK, data_args, "dev")
    labels = utils.find_labels(TASK, data_args.dataset, train_examples, model_args)

    # Features
    pretrained_tokenizer, tokenizer = utils.load_tokenizer(model_args, data_args)

    def features_of(examples):
        label2id = utils.label_ids(examples, labels, "tags")
        return utils.token_cls_features(examples, tokenizer, data_args, label2id)

    train_features = features_of(train_examples)
    eval_features = utils.longest_first(features_of(eval_examples))[0]

    # Model
    model = utils.load_model(AutoModelForTokenClassification, model_args, data_args, tokenizer, labels, fine_tuned=True)
    trainer = utils.CompressionTrainer(
        model=model,
        args=compression_args,
        data_collator=utils.Collator(tokenizer, data_args.dynamic_max_length),
        train_dataset=train_features,
        eval_dataset=eval_features,
        tokenizer=pretrained_tokenizer,
        compute_metrics=lambda output: utils.entity_scores(output.predictions, output.label_ids, labels),
        task=TASK,
        model_args=model_args,
        data_args=data_args,
        num_examples=len(eval_examples),
        baseline={"f1_of_all_O": 0.0},
    )

    # Compression: every variant is made, scored and timed; the last training goes on from its last checkpoint
    trainer.compress()


if __name__ == "__main__":
    utils.run(main)
