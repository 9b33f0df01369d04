"""Where blocks, queries and keys are: every name is a module of the model, and the numbers are the configuration's."""

import pytest
import transformers
from torch import nn

from edgeq.models import adapter_for


@pytest.mark.parametrize(
    ("architecture", "stacks"),
    [
        ("BertModel", {"encoder": 2}),
        ("BertForSequenceClassification", {"encoder": 2}),
        ("GPT2LMHeadModel", {"decoder": 2}),
        ("BartForConditionalGeneration", {"encoder": 2, "decoder": 3}),
    ],
)
def test_names_are_modules(make_bert, make_gpt2, make_bart, architecture, stacks):
    if architecture.startswith("Bart"):
        folder = make_bart(decoder_layers=3)
    else:
        folder = make_gpt2() if architecture.startswith("GPT2") else make_bert(architecture)
    model = getattr(transformers, architecture).from_pretrained(folder)
    modules = dict(model.named_modules())
    adapter = adapter_for(model)
    assert {stack.name: stack.depth for stack in adapter.stacks} == stacks
    for stack in adapter.stacks:
        assert getattr(model.config, stack.depth_field) == stack.depth
        assert isinstance(modules[stack.blocks], nn.ModuleList)
        assert len(modules[stack.blocks]) == stack.depth
        assert stack.hidden_name(0) == stack.embedding
        assert stack.embedding in modules
        for index in range(stack.depth):
            assert stack.hidden_name(index + 1) == stack.block(index)
            assert stack.block(index) in adapter.layer_names
            for tap in stack.attentions:
                assert f"{stack.block(index)}.{tap.query}" in modules
                assert f"{stack.block(index)}.{tap.key}" in modules
                assert stack.width % tap.heads == 0
