"""Stands in for sentence-transformers where it is not installed: what the tests of rule `meaning` need of it.

It reads a folder by itself, so that nothing of edgeq is compared with itself. `make test-compat` runs the same tests
with the real library.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers

__version__ = "0 (stand-in)"


class SentenceTransformer(torch.nn.Module):
    def __init__(self, folder, *, device, local_files_only):
        super().__init__()
        folder = Path(folder)
        kinds = {entry["type"].rsplit(".", 1)[1]: folder / entry["path"] for entry in _json(folder / "modules.json")}
        self.transformer = transformers.AutoModel.from_pretrained(folder, local_files_only=local_files_only).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.longest = _json(folder / "sentence_bert_config.json").get("max_seq_length")
        self.mode = _json(kinds["Pooling"] / "config.json")["pooling_mode"]
        self.normalizes = "Normalize" in kinds
        settings = _json(folder / "config_sentence_transformers.json")
        self.prompts, self.default = settings["prompts"], settings["default_prompt_name"]

    def encode(self, texts, *, show_progress_bar, prompt_name=None):
        prompt = self.prompts[prompt_name or self.default]
        return np.stack([self._encoded(prompt + text) for text in texts])

    def _encoded(self, text):
        given = self.tokenizer([text], truncation=True, max_length=self.longest, return_tensors="pt")
        with torch.no_grad():
            states = self.transformer(**given)[0][0].numpy()
        vector = {"cls": states[0], "mean": states.mean(axis=0), "max": states.max(axis=0)}[self.mode]
        return vector / np.linalg.norm(vector) if self.normalizes else vector


class CrossEncoder:
    def __init__(self, folder, *, device, local_files_only):
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        activation = self.model.config.sentence_transformers["activation_fn"].rsplit(".", 1)[1]
        self.activation = getattr(torch.nn, activation)()

    def predict(self, pairs, *, show_progress_bar):
        scores = []
        for pair in pairs:
            given = self.tokenizer([pair[0]], [pair[1]], truncation=True, return_tensors="pt")
            with torch.no_grad():
                scores.append(self.activation(self.model(**given).logits)[0, 0].item())
        return np.array(scores, np.float32)


def _json(path):
    return json.loads(path.read_text(encoding="utf-8"))
