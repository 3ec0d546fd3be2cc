"""Prunes and quantizes what run_qa.py fine-tuned, and measures every variant on the dev set.

python compress_qa.py --model_name_or_path best_models/cmrc2018/ --dataset cmrc2018 \\
    --output_dir ./best_models/cmrc2018 --config configs/default.yml
"""

import utils  # isort: skip  first, since it sees to what must stand before Paddle

from paddlenlp.transformers import AutoModelForQuestionAnswering

TASK = "QuestionAnswering"


def main():
    # Arguments: the command line over the YAML file over the defaults
    model_args, data_args, compression_args = utils.parse_arguments(TASK, utils.CompressionArguments)
    utils.check_writable(compression_args.output_dir)

    # Data
    train_examples = utils.load_examples(TASK, data_args, "train")
    eval_examples = utils.load_examples(TASK, data_args, "dev")

    # Features
    pretrained_tokenizer, tokenizer = utils.load_tokenizer(model_args, data_args)
    train_features, _ = utils.qa_features(train_examples, tokenizer, data_args, labelled=True)
    features, eval_offsets = utils.qa_features(eval_examples, tokenizer, data_args, labelled=True)
    eval_features, _ = utils.longest_first(features)

    def compute_metrics(output):
        answers = utils.find_answers(eval_examples, eval_features, eval_offsets, *output.predictions, data_args)
        references = [[answer["text"] for answer in e["answers"]] for e in eval_examples]
        return utils.cmrc_scores([a["answer"] for a in answers], references)

    # Model
    model = utils.load_model(AutoModelForQuestionAnswering, model_args, data_args, tokenizer, [], fine_tuned=True)
    trainer = utils.CompressionTrainer(
        model=model,
        args=compression_args,
        data_collator=utils.Collator(tokenizer, data_args.dynamic_max_length),
        train_dataset=train_features,
        eval_dataset=eval_features,
        tokenizer=pretrained_tokenizer,
        compute_metrics=compute_metrics,
        task=TASK,
        model_args=model_args,
        data_args=data_args,
        num_examples=len(eval_examples),
        baseline=utils.question_blind_share(eval_examples),
    )

    # Compression: every variant is made, scored and timed; the last training goes on from its last checkpoint
    trainer.compress()


if __name__ == "__main__":
    utils.run(main)
