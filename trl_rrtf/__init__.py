"""RRTF (rank responses to align test and teacher feedback) as an extension of Hugging Face TRL."""

__version__ = "0.1.0"
