"""Pruning of vocabularies: tokens that texts of a corpus never need leave the model and its tokenizer."""

from edgeq.vocabulary.prune import PrunedVocabulary, prune_as, prune_vocabulary

__all__ = ["PrunedVocabulary", "prune_as", "prune_vocabulary"]
