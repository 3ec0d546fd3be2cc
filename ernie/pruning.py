"""Pruning: DynaBERT's width pruning of a fine-tuned model, with the model itself as teacher.

Heads and neurons are put in the order of their importance; then one network is trained at several widths at once,
each using the first so many heads and neurons of every layer (Hou et al., DynaBERT, arXiv:2004.04037; the losses and
weights are PaddleNLP's).
"""

import copy
import os

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddlenlp.trainer import Trainer

from ernie import console
from ernie.files import new_folder, width_name
from ernie.results import read_metrics, write_metrics
from ernie.training import ErnieTrainer

# The weight of the hidden states' squared error beside the logits' cross entropy (PaddleNLP's lambda_distill).
HIDDEN_WEIGHT = 0.1


def encoder_layers(model):
    return getattr(model, model.base_model_prefix).encoder.layers


def linear_layers(layer):
    """(module, the name that it has for a linear layer) for all of an encoder layer, in the order of `narrow`."""
    attention = layer.self_attn
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return [*((attention, name) for name in names), (layer, "linear1"), (layer, "linear2")]


def kept_sizes(layer, width_mult):
    """(heads, neurons) of an encoder layer at a width; at least one of each."""
    # 12 * (2/3) must be 8 in spite of rounding.
    heads = max(int(layer.self_attn.full_num_heads * width_mult + 1e-6), 1)
    neurons = max(int(layer.linear1.weight.shape[1] * width_mult + 1e-6), 1)
    return heads, neurons


def importance(model, batches):
    """How much the loss would change without a head or a neuron, to first order.

    The derivative to a factor before a head's output is the sum of weight times gradient over the rows that the
    output projection has for the head; likewise for a neuron. Absolute values are summed over batches.

    Args:
        batches: {name: tensor}, with labels, with which the model returns its loss first.

    Returns:
        For each layer (heads: float [num_heads], neurons: float [inner size]).
    """
    layers = encoder_layers(model)
    heads = [np.zeros(layer.self_attn.num_heads) for layer in layers]
    neurons = [np.zeros(layer.linear1.weight.shape[1]) for layer in layers]
    model.eval()  # without dropout
    for batch in console.progress(batches, desc="importance of heads and neurons"):
        model(**batch)[0].backward()
        for layer, head, neuron in zip(layers, heads, neurons):
            rows = _weight_times_gradient(layer.self_attn.out_proj.weight).sum(axis=1)
            head += np.abs(rows.reshape(len(head), -1).sum(axis=1))
            inward = _weight_times_gradient(layer.linear1.weight).sum(axis=0)
            neuron += np.abs(inward + _weight_times_gradient(layer.linear1.bias))
            neuron += np.abs(_weight_times_gradient(layer.linear2.weight).sum(axis=1))
        model.clear_gradients()
    return list(zip(heads, neurons))


def _weight_times_gradient(parameter):
    return parameter.numpy() * parameter.grad.numpy()


def reorder(model, importances):
    """Puts the heads and neurons of each layer in the order of their importance; the model computes the same."""
    for layer, (heads, neurons) in zip(encoder_layers(model), importances):
        head_dim = layer.self_attn.head_dim
        order = np.argsort(-heads, kind="stable")
        channels = (order[:, None] * head_dim + np.arange(head_dim)).ravel()
        for name in ("q_proj", "k_proj", "v_proj"):
            _take(getattr(layer.self_attn, name), columns=channels)
        _take(layer.self_attn.out_proj, rows=channels)
        order = np.argsort(-neurons, kind="stable")
        _take(layer.linear1, columns=order)
        _take(layer.linear2, rows=order)


def _take(linear, rows=None, columns=None):
    if rows is not None:
        linear.weight.set_value(linear.weight.numpy()[rows])
    else:
        linear.weight.set_value(linear.weight.numpy()[:, columns])
        linear.bias.set_value(linear.bias.numpy()[columns])


class ElasticLinear(nn.Layer):
    """A linear layer of which the first so many inputs and outputs are used; the names of its weights stay.

    Shapes: [..., used inputs] to [..., out_features].
    """

    def __init__(self, linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.out_features = linear.weight.shape[1]

    def forward(self, x):
        weight = self.weight[: x.shape[-1], : self.out_features]
        return F.linear(x, weight, self.bias[: self.out_features])


class Supernet(nn.Layer):
    """A student at several widths with shared weights, and what it learns from its teacher.

    Training, it returns the loss over all widths; evaluating, what the model itself returns, at one width.
    """

    def __init__(self, model, width_mult_list):
        super().__init__()
        # Not a sublayer: the teacher is neither trained nor saved.
        self.__dict__["teacher"] = copy.deepcopy(model)
        self.teacher.eval()
        self.student = model
        self.width_mult_list = width_mult_list
        for layer in encoder_layers(model):
            layer.self_attn.full_num_heads = layer.self_attn.num_heads
            for owner, name in linear_layers(layer):
                setattr(owner, name, ElasticLinear(getattr(owner, name)))

    def set_width(self, width_mult):
        for layer in encoder_layers(self.student):
            heads, neurons = kept_sizes(layer, width_mult)
            attention = layer.self_attn
            attention.num_heads = heads
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                projection.out_features = heads * attention.head_dim
            layer.linear1.out_features = neurons

    def forward(self, input_ids, token_type_ids, **labels):
        if not self.training:
            return self.student(input_ids, token_type_ids, **labels)
        real = input_ids != self.student.config.pad_token_id
        with paddle.no_grad():
            teacher = hidden_states_and_logits(self.teacher, input_ids, token_type_ids)
        losses = []
        for width_mult in self.width_mult_list:
            self.set_width(width_mult)
            student = hidden_states_and_logits(self.student, input_ids, token_type_ids)
            losses.append(distillation_loss(student, teacher, real))
        return sum(losses)


def hidden_states_and_logits(model, input_ids, token_type_ids):
    """([embeddings' and each layer's output, [batch, length, width]], [logits, ...])."""
    output = model(input_ids, token_type_ids, output_hidden_states=True, return_dict=True)
    logits = [output[key] for key in ("logits", "start_logits", "end_logits") if key in output]
    return output.hidden_states, logits


def distillation_loss(student, teacher, real):
    """Squared error of hidden states and soft cross entropy of logits; padding counts nowhere.

    Args:
        student, teacher: of `hidden_states_and_logits`.
        real: bool [batch, length], True for what is not padding.
    """
    mask = real.astype("float32")
    count = mask.sum()
    loss = 0.0
    for found, expected in zip(student[0], teacher[0]):
        loss += HIDDEN_WEIGHT * (((found - expected) ** 2).mean(axis=-1) * mask).sum() / count
    soft = 0.0
    for found, expected in zip(student[1], teacher[1]):
        if len(student[1]) == 2:  # starts and ends, one score per token: a distribution over the text
            found, expected = (x - (1 - mask) * 1e4 for x in (found, expected))
        entropy = -(F.softmax(expected, axis=-1) * F.log_softmax(found, axis=-1)).sum(axis=-1)
        soft += (entropy * mask).sum() / count if found.ndim == 3 else entropy.mean()
    return loss + soft / len(student[1])


def narrow(model, width_mult):
    """Cuts every encoder layer of a model to its first so many heads and neurons."""
    for layer in encoder_layers(model):
        attention = layer.self_attn
        attention.full_num_heads = attention.num_heads
        heads, neurons = kept_sizes(layer, width_mult)
        inner = heads * attention.head_dim
        sizes = [(None, inner), (None, inner), (None, inner), (inner, None), (None, neurons), (neurons, None)]
        for (owner, name), (rows, columns) in zip(linear_layers(layer), sizes):
            old = getattr(owner, name)
            new = nn.Linear(rows or old.weight.shape[0], columns or old.weight.shape[1])
            new.weight.set_value(old.weight[:rows, :columns])
            new.bias.set_value(old.bias[:columns])
            setattr(owner, name, new)
        attention.num_heads = heads
    model.config.width_mult = width_mult
    return model


class PruningTrainer(ErnieTrainer):
    """Trains a `Supernet`; keeps the best weights of each width by dev score."""

    name = "pruning"

    def evaluate(self, *args, **kwargs):
        """Scores each width, and keeps its weights where they are the best so far."""
        supernet = self.model
        for width_mult in supernet.width_mult_list:
            supernet.set_width(width_mult)
            found = Trainer.evaluate(self, *args, **kwargs)
            score = found[f"eval_{self.task.score}"]
            weights = best_weights(self.args.output_dir, width_mult)
            folder, name = os.path.split(weights)
            best = read_metrics(folder)
            if self.args.should_save and (best is None or score > best["score"]):
                with new_folder(folder) as part:
                    paddle.save(supernet.student.state_dict(), os.path.join(part, name))
                    write_metrics(part, {"score": score, "step": self.state.global_step})
        return found


def best_weights(folder, width_mult):
    """The file in which a `PruningTrainer` keeps the best weights of a width, in its folder."""
    return os.path.join(folder, width_name(width_mult), "model_state.pdparams")
