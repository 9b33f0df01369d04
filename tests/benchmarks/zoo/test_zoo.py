import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from benchmarks.zoo import gpt2_wikitext2, state
from benchmarks.zoo.average import WeightAverage
from benchmarks.zoo.bpe import train_bpe
from benchmarks.zoo.corpus import Blocks, count_words, read_articles
from benchmarks.zoo.infilling import infill
from benchmarks.zoo.loop import Plan, train
from benchmarks.zoo.publish import publish
from benchmarks.zoo.rouge import rouge
from benchmarks.zoo.schedule import Schedule
from edgeq.errors import FormatError, UsageError

TEXT = (
    " \n = The River = \n \n The river 's <unk> , a well @-@ known one , rose 3 @.@ 5 m ( 11 ft ) . \n"
    " \n = = Mouth = = \n \n It ends there . \n = The Hill = \n \n A hill is not a river . \n"
)


def test_a_files_articles_and_words_are_found(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    first, second = read_articles(tmp_path / "a.txt")
    assert first.startswith("= The River =")
    assert "= = Mouth = =" in first
    assert second.endswith("not a river .")
    # As WikiText's authors count: words, and one for the end of each of the eleven lines.
    assert count_words(tmp_path / "a.txt") == len(TEXT.split()) + TEXT.count("\n")
    with pytest.raises(UsageError, match=r"b\.txt does not exist"):
        read_articles(tmp_path / "b.txt")


def test_the_tokenizer_joins_split_punctuation_and_leaves_written_text_alone():
    tokenizer = train_bpe([TEXT] * 20, entries=330, special=["<|endoftext|>"])
    read = tokenizer.decode(tokenizer.encode(TEXT.split("\n")[3]).ids)
    assert read == " The river's <unk>, a well-known one, rose 3.5 m (11 ft). "
    for written in ('He said "no", and (then) left: it isn\'t over.', "naïve 日本\n\ntwo  spaces", ""):
        assert tokenizer.decode(tokenizer.encode(written).ids) == written
    assert len(tokenizer.encode(" <unk>").ids) == 1


def test_an_epoch_shows_every_block_once_and_the_next_another_order():
    blocks = Blocks(np.arange(1000, dtype=np.int32), length=10, per_step=3, seed=5)
    epoch = [blocks.at(step) for step in range(blocks.steps_per_epoch)]
    inputs = np.concatenate(epoch)[:, :-1].ravel()
    assert len(set(inputs.tolist())) == inputs.size >= 0.95 * 1000
    assert all((rows[:, 1:] == rows[:, :-1] + 1).all() for rows in epoch)
    assert not np.array_equal(blocks.at(0), blocks.at(blocks.steps_per_epoch))
    assert np.array_equal(blocks.at(7), Blocks(blocks.stream, length=10, per_step=3, seed=5).at(7))


def test_before_the_decay_the_rate_does_not_depend_on_the_number_of_steps():
    short, long = Schedule(1e-3, 10, 100, 0.4), Schedule(1e-3, 10, 300, 0.4)
    assert [short.rate(step) for step in range(60)] == [long.rate(step) for step in range(60)]
    falling = [short.rate(step) for step in range(60, 100)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] < 1e-3
    assert 0 < falling[-1] < 0.03e-3


@pytest.mark.parametrize("length", [1, 2, 9, 200])
def test_infilling_hides_spans_and_keeps_the_rest_in_order(length):
    random = np.random.default_rng(length)
    for _ in range(50):
        ids = np.arange(10, 10 + length)
        noisy = infill(ids, random, mask=3, share=0.3)
        kept = noisy[noisy != 3]
        assert (np.diff(kept) > 0).all()
        assert length - len(kept) <= round(0.3 * length)
        assert not ((noisy[1:] == 3) & (noisy[:-1] == 3)).any()
    if length == 200:
        assert length - len(kept) > 0.2 * length


def test_rouge_of_known_pairs():
    assert rouge("The cat sat.", ["the cat sat"]) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    figures = rouge("the cat sat down", ["a dog", "the cat lay down there"])
    assert figures == pytest.approx({"rouge1": 6 / 9, "rouge2": 2 / 7, "rougeL": 6 / 9})
    assert rouge("", ["word"])["rouge1"] == 0.0


def _tiny_gpt2(positions=16, dropout=0.1):
    torch.manual_seed(3)
    sizes = {"n_positions": positions, "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 330}
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0))


@dataclass(frozen=True)
class _Counting:
    """Predicts a counting sequence; stops with an error at ``stop``, as a kill would."""

    stop: int | None = None
    tokens_per_step: int = 32

    def loss(self, model, *, step):
        if step == self.stop:
            raise KeyboardInterrupt
        rows = torch.arange(17)[None] + torch.tensor([[step % 50], [(step * 7) % 50]])
        return gpt2_wikitext2.next_token_loss(model, rows)

    def validate(self, model):
        return {"loss": float(gpt2_wikitext2.next_token_loss(model, torch.arange(17)[None] + 5))}


def _plan(**changes):
    return Plan(Schedule(1e-3, 3, 12, 0.5), validate_every=4, log_every=2, **{"save_seconds": 0.0, **changes})


def test_a_resumed_run_is_the_uninterrupted_run_to_the_last_bit(tmp_path):
    whole = _tiny_gpt2()
    train(whole, _Counting(), folder=tmp_path / "whole", plan=_plan())
    with pytest.raises(KeyboardInterrupt):
        train(_tiny_gpt2(), _Counting(stop=7), folder=tmp_path / "cut", plan=_plan())
    # A state that was being written when the run was killed, and a log line that was cut short.
    (tmp_path / "cut" / ".state-9.xyz.partial").mkdir()
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "lo')
    resumed = _tiny_gpt2()
    train(resumed, _Counting(), folder=tmp_path / "cut", plan=_plan())
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    losses = [[{k: v for k, v in json.loads(line).items() if "loss" in k} for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert [folder.name for folder in sorted((tmp_path / "cut").glob("state-*"))] == ["state-12"]


def test_a_resumed_average_is_the_uninterrupted_one(tmp_path):
    plan = _plan(average=0.8)
    train(_tiny_gpt2(), _Counting(), folder=tmp_path / "whole", plan=plan)
    with pytest.raises(KeyboardInterrupt):
        train(_tiny_gpt2(), _Counting(stop=7), folder=tmp_path / "cut", plan=plan)
    resumed = _tiny_gpt2()
    train(resumed, _Counting(), folder=tmp_path / "cut", plan=plan)
    best = [GPT2LMHeadModel.from_pretrained(tmp_path / name / "best") for name in ("whole", "cut")]
    assert all(torch.equal(a, b) for a, b in zip(best[0].parameters(), best[1].parameters(), strict=True))
    # The best model is the average, not the weights of the last step.
    assert not torch.equal(best[0].transformer.wte.weight, resumed.transformer.wte.weight)
    train(_tiny_gpt2(), _Counting(), folder=tmp_path / "none", plan=_plan())
    with pytest.raises(FormatError, match="holds no average"):
        train(_tiny_gpt2(), _Counting(), folder=tmp_path / "none", plan=plan)


def test_an_average_is_near_the_mean_of_the_last_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, keep=0.5)
    for step, value in enumerate((4.0, 8.0), 1):
        model.weight.data.fill_(value)
        average.update(model, step=step)
    assert float(average.values["weight"]) == pytest.approx(0.5 * (0.5 * 4.0) + 0.5 * 8.0)
    with average.in_place_of(model):
        assert float(model.weight.detach()) == pytest.approx(5.0)
    assert float(model.weight.detach()) == 8.0


@dataclass(frozen=True)
class _Stalling(_Counting):
    """Validates worse and worse after the eighth step."""

    def validate(self, model):
        del model
        self.seen.append(1)
        return {"loss": 1.0 if len(self.seen) > 2 else 1.0 - 0.1 * len(self.seen)}

    seen: list = field(default_factory=list)


def test_training_ends_with_a_falling_rate_once_validations_stop_improving(tmp_path):
    plan = Plan(Schedule(1e-3, 3, 1000, 0.5), validate_every=4, log_every=2, save_seconds=0.0, patience=2)
    train(_tiny_gpt2(), _Stalling(), folder=tmp_path, plan=plan)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (decided,) = [line for line in log if "decay_begins" in line]
    # The best of the validations is the second, at step 8; two more are waited for.
    assert (decided["step"], decided["decay_begins"], decided["steps"]) == (16, 16, 32)
    assert log[-1]["step"] == 32
    rates = {line["step"]: line["rate"] for line in log if "rate" in line}
    assert rates[16] == 1e-3
    assert rates[32] < 0.05e-3
    # Started again, it knows that it is finished.
    train(_tiny_gpt2(), _Stalling(stop=32), folder=tmp_path, plan=plan)


def test_training_goes_on_from_a_model_of_the_same_architecture(tmp_path, monkeypatch):
    monkeypatch.setattr(gpt2_wikitext2, "configuration", lambda entries, dropout: _tiny_gpt2(dropout=dropout).config)
    given = _tiny_gpt2()
    given.half().save_pretrained(tmp_path / "given")
    model = gpt2_wikitext2.new_model(330, dropout=0.2, start=str(tmp_path / "given"))
    assert torch.equal(model.transformer.wte.weight, given.transformer.wte.weight.float())
    assert model.config.resid_pdrop == 0.2
    _tiny_gpt2(positions=20).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match="another architecture"):
        gpt2_wikitext2.new_model(330, dropout=0.2, start=str(tmp_path / "other"))


def test_a_state_of_another_model_is_refused(tmp_path):
    train(_tiny_gpt2(), _Counting(), folder=tmp_path, plan=_plan())
    other = _tiny_gpt2(positions=20)
    with pytest.raises(FormatError, match=r"wpe.*20"):
        state.load_state(tmp_path, other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize("name", ["gpt2-wikitext2", "gpt2-wikitext2-plateau"])
def test_publishing_writes_a_folder_that_loads_and_a_card(name, tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "wikitext2").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (data / "wikitext2" / f"{part}.txt").write_text(TEXT * 20)
    monkeypatch.setattr(gpt2_wikitext2, "POSITIONS", 48)
    gpt2_wikitext2.prepare_tokenizer(data, run, entries=330)
    (run / "run.json").write_text(json.dumps({"module": "benchmarks.zoo.gpt2_wikitext2", "options": {"seed": 1}}))
    train(_tiny_gpt2(positions=48), _Counting(), folder=run, plan=_plan())
    monkeypatch.setattr("benchmarks.zoo.figures.PROMPT", "A hill")
    monkeypatch.setattr("benchmarks.zoo.figures.NEW_TOKENS", 8)
    record = publish(name, run=run, data=data, out=tmp_path / "zoo")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "zoo")
    read = AutoTokenizer.from_pretrained(tmp_path / "zoo")("A hill is", return_tensors="pt")
    assert model(**read).logits.shape == (1, read["input_ids"].shape[1], 330)
    assert model.config.activation_function == "gelu_new"
    assert [figure["name"] for figure in record["figures"]] == ["perplexity per token", "perplexity per word"] * 2
    assert all(1 < figure["value"] < 1e6 for figure in record["figures"])
    card = (tmp_path / "zoo" / "README.md").read_text()
    assert "trained by this project" in card
    assert "python -m benchmarks.zoo.gpt2_wikitext2 --data DATA --out RUN --seed 1" in card
    with pytest.raises(UsageError, match="holds no model"):
        publish("gpt2-wikitext2", run=tmp_path, data=data, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
