"""What is read from models, against what transformers itself returns."""

import pytest
import torch
import transformers

from edgeq.distill import FeatureReader, Wanted
from edgeq.distill.labels import NO_LABEL
from edgeq.errors import UnsupportedError
from edgeq.models import adapter_for

LEAST = torch.finfo(torch.float32).min


def everything(adapter):
    return Wanted(
        {stack.name: tuple(range(stack.depth + 1)) for stack in adapter.stacks},
        {stack.name: tuple(range(stack.depth)) for stack in adapter.stacks},
    )


def padded_batch(vocabulary=80):
    ids = torch.randint(5, vocabulary, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    return {"input_ids": ids, "attention_mask": mask}


def assert_attention(stack, probabilities, name):
    """Compares softmaxed scores with the attention that the model itself reports."""
    for index, expected in enumerate(probabilities):
        pairs = stack.pairs[name]
        found = stack.scores[index][name].masked_fill(~pairs, LEAST).softmax(-1)
        real = pairs.any(dim=-1).expand(found.shape[:-1])
        torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-6)


def assert_hidden(stack, expected):
    for index, state in enumerate(expected):
        torch.testing.assert_close(stack.hidden[index][stack.mask], state[stack.mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["BertModel", "BertForSequenceClassification"])
def test_bert(make_bert, architecture):
    model = getattr(transformers, architecture).from_pretrained(make_bert(architecture))
    eager = getattr(transformers, architecture).from_pretrained(make_bert(architecture), attn_implementation="eager")
    adapter = adapter_for(model)
    batch = padded_batch() | {"token_type_ids": torch.randint(0, 2, (2, 7))}
    reader = FeatureReader(model.eval(), adapter, wanted=everything(adapter))
    with torch.no_grad():
        features = reader(batch)
        expected = eager.eval()(**batch, output_hidden_states=True, output_attentions=True)
    stack = features.stacks["encoder"]
    assert_hidden(stack, expected.hidden_states)
    assert_attention(stack, expected.attentions, "self")
    if architecture == "BertModel":
        last = expected.last_hidden_state
        torch.testing.assert_close(features.output[1], last[1, :4].mean(dim=0), rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(features.output, expected.logits, rtol=1e-4, atol=1e-5)


def test_gpt2(make_gpt2):
    folder = make_gpt2()
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    eager = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    adapter = adapter_for(model)
    batch = padded_batch(283)
    reader = FeatureReader(model.eval(), adapter, wanted=everything(adapter))
    with torch.no_grad():
        features = reader(batch | {"labels": torch.zeros(2, 7)})
        expected = eager.eval()(**batch, output_hidden_states=True, output_attentions=True)
    stack = features.stacks["decoder"]
    assert_hidden(stack, expected.hidden_states[:-1])  # transformers puts the final norm on the last one
    assert_attention(stack, expected.attentions, "self")
    torch.testing.assert_close(features.output, expected.logits, rtol=1e-4, atol=1e-5)


def test_bart(make_bart):
    folder = make_bart()
    model = transformers.BartForConditionalGeneration.from_pretrained(folder)
    eager = transformers.BartForConditionalGeneration.from_pretrained(folder, attn_implementation="eager")
    adapter = adapter_for(model)
    batch = padded_batch(283) | {"decoder_input_ids": torch.randint(4, 283, (2, 5))}
    labels = torch.full((2, 5), 7)
    labels[0, 3:] = NO_LABEL
    reader = FeatureReader(model.eval(), adapter, wanted=everything(adapter))
    with torch.no_grad():
        features = reader(batch | {"labels": labels})
        expected = eager.eval()(**batch, output_hidden_states=True, output_attentions=True)
    encoder, decoder = features.stacks["encoder"], features.stacks["decoder"]
    assert_hidden(encoder, expected.encoder_hidden_states)
    assert_hidden(decoder, expected.decoder_hidden_states)
    assert_attention(encoder, expected.encoder_attentions, "self")
    assert_attention(decoder, expected.decoder_attentions, "self")
    assert_attention(decoder, expected.cross_attentions, "cross")
    assert decoder.mask.sum(dim=1).tolist() == [3, 5]


def test_only_what_is_wanted_is_read(make_bert):
    model = transformers.BertModel.from_pretrained(make_bert())
    reader = FeatureReader(model, adapter_for(model), wanted=Wanted({"encoder": (2,)}, {"encoder": (0,)}))
    stack = reader(padded_batch()).stacks["encoder"]
    assert (list(stack.hidden), list(stack.scores)) == ([2], [0])
    assert stack.hidden[2].requires_grad


def test_closing_takes_the_hooks_off(make_bert):
    model = transformers.BertModel.from_pretrained(make_bert())
    adapter = adapter_for(model)
    reader = FeatureReader(model, adapter, wanted=everything(adapter))
    assert any(module._forward_hooks for module in model.modules())
    reader.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_did_not_run_are_an_error(make_bart):
    model = transformers.BartForConditionalGeneration.from_pretrained(make_bart(encoder_layerdrop=1.0)).train()
    adapter = adapter_for(model)
    reader = FeatureReader(model, adapter, wanted=everything(adapter))
    ids = torch.randint(4, 283, (2, 5))
    batch = padded_batch(283) | {"decoder_input_ids": ids, "labels": ids}
    with pytest.raises(UnsupportedError, match="set layerdrop to 0"):
        reader(batch)
