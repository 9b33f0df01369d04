from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import UsageError
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.recipes.training_sections import LayersSection


def _run(model, ids):
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(ids, **inputs)[0]


@pytest.mark.parametrize("family", ["make_bert", "make_gpt2"])
def test_a_student_is_its_teacher_without_the_other_blocks(
    family: str, request: pytest.FixtureRequest
) -> None:
    make: Callable[..., Path] = request.getfixturevalue(family)
    depth = {"make_bert": "num_hidden_layers", "make_gpt2": "n_layer"}[family]
    teacher = load_checkpoint(make(seed=3, **{depth: 4}))
    keep = kept_layers(LayersSection(keep=(1, 3)), teacher.adapter)
    student, adapter = reduce_layers(teacher.model, teacher.adapter, keep)
    assert adapter.stacks[0].depth == 2
    ids = torch.randint(5, 80, (2, 9), generator=torch.Generator().manual_seed(1))
    blocks = teacher.model.get_submodule(adapter.stacks[0].blocks)
    for index in (2, 0):  # what the student should be: the teacher's own blocks, those to be dropped taken out
        del blocks[index]
    if family == "make_gpt2":
        for index, block in enumerate(blocks):
            block.attn.layer_idx = index
    assert torch.equal(_run(student, ids), _run(teacher.model, ids))


def test_both_sides_of_an_encoder_decoder(make_bart: Callable[..., Path]) -> None:
    teacher = load_checkpoint(make_bart(seed=2, encoder_layers=3, decoder_layers=4))
    keep = kept_layers(LayersSection(keep=(0, 2), keep_decoder=(1,)), teacher.adapter)
    student, adapter = reduce_layers(teacher.model, teacher.adapter, keep)
    assert [stack.depth for stack in adapter.stacks] == [2, 1]
    assert student.config.num_hidden_layers == 2
    ids = torch.randint(5, 80, (2, 9), generator=torch.Generator().manual_seed(1))
    body = teacher.model.model
    del body.encoder.layers[1], body.decoder.layers[3], body.decoder.layers[2], body.decoder.layers[0]
    body.decoder.layers[0].self_attn.layer_idx = body.decoder.layers[0].encoder_attn.layer_idx = 0
    assert torch.equal(_run(student, ids), _run(teacher.model, ids))
    assert student.lm_head.weight is student.model.shared.weight


def test_the_teacher_is_left_alone(make_bert: Callable[..., Path]) -> None:
    teacher = load_checkpoint(make_bert(seed=4))
    student, _ = reduce_layers(teacher.model, teacher.adapter, {"encoder": (0,)})
    assert teacher.model.config.num_hidden_layers == 2
    addresses = {tensor.data_ptr() for tensor in teacher.model.state_dict().values()}
    assert not any(tensor.data_ptr() in addresses for tensor in student.state_dict().values())


def test_without_a_section_all_layers_stay(make_bert: Callable[..., Path]) -> None:
    adapter = load_checkpoint(make_bert(seed=4)).adapter
    assert kept_layers(None, adapter) == {"encoder": (0, 1)}


def test_a_layer_that_is_not_there(make_bert: Callable[..., Path]) -> None:
    adapter = load_checkpoint(make_bert(seed=4)).adapter
    with pytest.raises(UsageError, match=r"keeps layer 5 of the encoder, but BertModel has 2"):
        kept_layers(LayersSection(keep=(1, 5)), adapter)
    with pytest.raises(UsageError, match="encoder-decoders"):
        kept_layers(LayersSection(keep=(1,), keep_decoder=(0,)), adapter)
