"""Scores of documents: learned from examples, asked of a teacher, counted; perplexity is `curricula/difficulty.py`."""
