"""Builds a harness of libedgeq with libFuzzer and runs it on its seeds; see README.md."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.targets.bundle.tokenizer.charsmap import make_charsmap
from edgeq.targets.bundle.tokenizer.table import write_tokenizer

if TYPE_CHECKING:
    import tokenizers

HERE = Path(__file__).resolve().parent
LIBEDGEQ = HERE.parent
HARNESSES = ("json", "manifest", "code", "pack", "tokenizer", "text", "tensors")
_ALONE = ("tensors",)
"""Harnesses that take no part of the library."""
_DIGESTS = ("sha256", "sha256_blocks", "sha256_lanes", "crc32")
"""Files in which no byte of an input leads anywhere: libFuzzer need not follow it, which takes most of the time."""
_WEIGHTS = 1 << 16
_LONGEST = 1 << 17
"""Bytes of an input: libFuzzer cuts seeds that are longer, and a table that is cut is refused at once."""
_LONGEST_TEXT = 1 << 12
"""Bytes of a text: longer ones mostly take longer."""
FLAGS = ["-std=gnu11", "-O1", "-g", "-fno-sanitize-recover=all", "-ffp-contract=off", "-D_GNU_SOURCE"]
FLAGS += ["-Wall", "-Wextra", "-Werror", f"-I{LIBEDGEQ / 'include'}"]
"""How the library and programs of it are compiled with sanitizers."""
_ROLES = {"mask_token": "[MASK]", "unk_token": "[UNK]", "pad_token": "[PAD]", "clean_up_tokenization_spaces": True}


def compile_library(folder: Path) -> list[Path]:
    """Compiles the library with the sanitizers into a folder, unless it is there; returns the object files.

    They go into programs of libFuzzer and into others.
    """
    if not folder.is_dir():
        folder.mkdir()
        for source in sorted((LIBEDGEQ / "library").glob("*.c")):
            watched = ["-O3"] if source.stem in _DIGESTS else ["-fsanitize=fuzzer-no-link"]
            command = ["clang", *FLAGS, "-fsanitize=address,undefined", *watched, "-c", str(source)]
            subprocess.run(command, check=True, cwd=folder)
    return sorted(folder.glob("*.o"))


def build(name: str, out: Path) -> Path:
    """Builds a harness in a folder, which keeps the library for the next one, and returns the program."""
    program = out / f"fuzz_{name}"
    parts = [HERE / f"fuzz_{name}.c", *([] if name in _ALONE else compile_library(out / "library"))]
    command = ["clang", *FLAGS, f'-DEDGEQ_FUZZ_TABLES="{HERE / "seeds" / "tokenizer"}"']
    command += ["-fsanitize=fuzzer,address,undefined", *map(str, parts), "-lm", "-lpthread", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def run(name: str, *, runs: int, corpus: Path | None = None, folder: Path | None = None) -> int:
    """Runs a harness on its seeds; returns how many inputs were tried. A finding is an error of the process.

    Args:
        name: One of :data:`HARNESSES`.
        runs: Inputs to try.
        corpus: Folder that keeps what reached new places; None forgets it.
        folder: Folder to build in; None takes one that is removed afterwards.
    """
    with tempfile.TemporaryDirectory() as temporary:
        program = build(name, folder or Path(temporary))
        found = corpus or Path(temporary) / "corpus"
        found.mkdir(parents=True, exist_ok=True)
        longest = _LONGEST_TEXT if name == "text" else _LONGEST
        command = [str(program), str(found), str(HERE / "seeds" / name), f"-runs={runs}", f"-max_len={longest}"]
        command += ["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={temporary}/"]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if result.returncode != 0:
            for path in Path(temporary).glob("*-*"):
                if path.is_file() and path != program:
                    shutil.copy(path, Path.cwd() / path.name)
            raise SystemExit(f"{name}: a finding\n{result.stderr[-6000:]}")
    return int(re.search(r"number_of_executed_units:\s*(\d+)", result.stderr).group(1))  # type: ignore[union-attr]


def make_seeds(bundle: Path, label: str) -> None:
    """Writes seeds of a bundle's files: small ones, and a manifest whose kernels have one name."""
    table = json.loads((bundle / "manifest.json").read_text())
    for target in table["targets"]:
        target["cpu_flags"] = []
    for function in table["functions"].values():
        for plan in [function.get("plan"), *function.get("plans", {}).values()]:
            for step in plan["steps"] if plan else []:
                step["kernel"] = "k"
    table["files"] = {name: {"bytes": _WEIGHTS, "blocks": []} for name in ("weights.bin", "golden.bin")}
    for weight in table["weights"]:
        weight["offset"] = 0
    _write("manifest", label + ".json", json.dumps(table, separators=(",", ":")).encode())
    _write("json", label + ".json", json.dumps(table["functions"]["main"]["inputs"]).encode())
    packed = {"manifest.json": json.dumps(table).encode(), "manifest.sha256": b"0" * 65}
    _write("pack", label + ".edgeq", _packed(packed))


def make_tokenizer_seeds() -> None:
    """Writes tables of small tokenizers of each kind that the library knows, from today's compiler."""
    for label, tokenizer in _tokenizers().items():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "tokenizer.json"
            tokenizer.save(str(source))
            source.with_name("tokenizer_config.json").write_text(json.dumps(_ROLES))
            _write_table(label, source)
    with tempfile.TemporaryDirectory() as folder:
        _write_table("marian", _marian(Path(folder)))


def _write_table(label: str, source: Path) -> None:
    table = source.with_name("tokenizer.bin")
    # Letters in lower case would be most of a file, and there is nothing in them to get wrong.
    write_tokenizer(source, table, lower_case=False)
    data = table.read_bytes()
    if len(data) > _LONGEST:
        raise SystemExit(f"{label} has {len(data)} bytes, more than inputs have")
    _write("tokenizer", f"{label}.bin", data)


def _marian(folder: Path) -> Path:
    """Files as of opus-mt, whose map of texts is a small one."""
    import sentencepiece

    rules = folder / "rules.tsv"
    rules.write_text("A\t61\nE9\t65\n65 301\t65\n2028\t20\nFB01\t66 69\nAD\t\n", encoding="ascii")
    for name, lines in (("source", ["the cat sat", "a cafe"]), ("target", ["die Katze", "ein Haus"])):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 40),
            model_prefix=str(folder / name),
            normalization_rule_tsv=str(rules),
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
    files = [str(folder / f"{name}.spm") for name in ("source", "target")]
    models = [sentencepiece.SentencePieceProcessor(model_file=file) for file in files]
    pieces = sorted({model.id_to_piece(number) for model in models for number in range(3, model.get_piece_size())})
    names = ["</s>", "<unk>", ">>deu<<", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer", "model_max_length": 60}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder / "vocab.json"


def _tokenizers() -> dict[str, tokenizers.Tokenizer]:
    """WordPiece as of BERT, byte-level BPE as of GPT-2, Unigram as of XLM-RoBERTa, BPE on characters as of Llama.

    Besides these, one each that composes characters, takes them apart, and maps them as SentencePiece does.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cafe", "cat", "sat", "##s", "##at", "1", "2", "!"]
    words = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token=pieces[1]))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    words.add_special_tokens(pieces[:5])
    words.decoder = decoders.WordPiece()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("c", "a"), ("\u0120", "s")]
    names = [*letters, *("".join(pair) for pair in merges), "<|endoftext|>"]
    of_bytes = Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, merges))
    of_bytes.pre_tokenizer, of_bytes.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    of_bytes.add_special_tokens(["<|endoftext|>"])
    of_bytes.post_processor = processors.ByteLevel(trim_offsets=True)
    scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581the", -3.0)]
    scored += [("ca", -4.0), ("fe", -4.5), ("a", -5.0), ("t", -5.0), ("\u6c49", -6.0), ("<mask>", 0.0)]
    unigram = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=False))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    unigram.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    hexes = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<unk>", "<s>", "</s>", *hexes, "\u2581", "t", "h", "e", "a", "c", "th", "the", "\u2581the"]
    joins = [("t", "h"), ("th", "e"), ("\u2581", "the")]
    numbers, options = {name: at for at, name in enumerate(names)}, {"fuse_unk": True, "byte_fallback": True}
    of_characters = Tokenizer(models.BPE(numbers, joins, unk_token=names[0], **options))
    of_characters.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    of_characters.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    composed = Tokenizer(models.WordLevel({pieces[1]: 0, "caf\u00e9": 1}, unk_token=pieces[1]))
    composed.normalizer, composed.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Whitespace()
    mapped = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=False))
    texts = {"\u00e9": "e", "e\u0301": "e", "\ufb01": "fi", "\u2028": " ", "\u00ad": "", "\uff21": "A"}
    charsmap = make_charsmap({text.encode(): normal for text, normal in texts.items()})
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    mapped.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), spaces])
    mapped.pre_tokenizer, mapped.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    decomposed = Tokenizer(models.WordLevel({pieces[1]: 0, "cafe\u0301": 1}, unk_token=pieces[1]))
    decomposed.normalizer, decomposed.pre_tokenizer = normalizers.NFD(), pre_tokenizers.Whitespace()
    others = {"unigram": unigram, "characters": of_characters, "composed": composed}
    others |= {"mapped": mapped, "decomposed": decomposed}
    return {"words": words, "bytes": of_bytes, **others}


def _packed(files: dict[str, bytes]) -> bytes:
    """A packed bundle; library/pack.h describes it. The harness mends the digest of the table."""
    place = 4096
    table, body = b"", b""
    for name, data in files.items():
        table += struct.pack("<QQH", place, len(data), len(name)) + name.encode()
        body += data + bytes(-len(data) % 4096)
        place += len(data) + -len(data) % 4096
    head = b"EDGEQPK1" + struct.pack("<IIQQ", 1, len(files), place, len(table)) + bytes(32) + table
    return head + bytes(4096 - len(head)) + body


def _write(name: str, file: str, data: bytes) -> None:
    (HERE / "seeds" / name).mkdir(parents=True, exist_ok=True)
    (HERE / "seeds" / name / file).write_bytes(data)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*HARNESSES, "seeds"])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path, help="folder that keeps what reached new places")
    parser.add_argument("--bundle", type=Path, help="with `seeds`: bundle to take them from")
    parser.add_argument("--label", default="bundle", help="with `seeds`: name of the files")
    given = parser.parse_args()
    if given.name == "seeds":
        make_tokenizer_seeds()
        if given.bundle is not None:
            make_seeds(given.bundle, given.label)
    else:
        tried = run(given.name, runs=given.runs, corpus=given.corpus)
        sys.stdout.write(f"{given.name}: {tried} inputs, no finding\n")


if __name__ == "__main__":
    main()
