"""Makes an ERNIE model folder with random weights, to be trained from scratch.

python examples/make_model.py                                        the sample model: 2 layers, 128 wide
python examples/make_model.py --arch nano --output_dir models/nano   an ERNIE 3.0 architecture

Such a model has seen no text: it shows that a task can be learnt, how fast it runs and what it weighs, not how
well ERNIE 3.0 does. Pretrained weights come from the hub by name (ernie-3.0-nano-zh).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import workarounds  # noqa: F401  before Paddle

import argparse

import paddle
from ernie_predictor.commandline import HelpFormatter, existing_file
from paddlenlp.transformers import ErnieConfig, ErnieModel, ErnieTokenizer

from ernie import console  # noqa: F401  PaddleNLP's own messages: its warnings only

HERE = Path(__file__).resolve().parent
VOCAB = str(HERE / "model" / "vocab.txt")

# Layers, width, heads, inner width: ERNIE 3.0's published sizes, and the sample's.
ARCHITECTURES = {
    "base": (12, 768, 12, 3072),
    "medium": (6, 768, 12, 3072),
    "mini": (6, 384, 12, 1536),
    "micro": (4, 384, 12, 1536),
    "nano": (4, 312, 12, 1248),
    "sample": (2, 128, 4, 512),
}


def make_model(arch, vocab_file, output_dir, seed=0):
    """Writes config.json, model_state.pdparams, vocab.txt and tokenizer_config.json into a folder."""
    paddle.seed(seed)
    layers, width, heads, inner = ARCHITECTURES[arch]
    tokenizer = ErnieTokenizer(str(vocab_file))
    sample = arch == "sample"
    config = ErnieConfig(
        vocab_size=max(tokenizer.vocab.token_to_idx.values()) + 1,  # an entry may stand twice
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=512 if sample else 2048,
        type_vocab_size=4,
        task_type_vocab_size=3,
        use_task_id=True,
        # The narrow sample learns faster from larger weights and needs no dropout.
        initializer_range=0.1 if sample else 0.02,
        hidden_dropout_prob=0.0 if sample else 0.1,
        attention_probs_dropout_prob=0.0 if sample else 0.1,
    )
    model = ErnieModel(config)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(output_dir))
    tokenizer.save_pretrained(str(output_dir))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--arch", choices=ARCHITECTURES, default="sample", help="sizes of the model")
    add("--vocab_file", metavar="FILE", type=existing_file, default=VOCAB, help="vocabulary, an entry per line")
    add("--output_dir", metavar="DIR", type=Path, default=HERE / "model", help="for the model")
    add("--seed", metavar="N", type=int, default=0, help="of the weights")
    args = parser.parse_args()
    model = make_model(args.arch, args.vocab_file, args.output_dir, args.seed)
    count = sum(p.size for p in model.parameters())
    print(f"{args.output_dir}: {args.arch}, {int(count) / 1e6:.1f} million weights, at random")


if __name__ == "__main__":
    main()
