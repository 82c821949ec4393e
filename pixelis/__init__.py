"""Pixelis: curriculum fine-tuning of vision-language models on CoTA data."""

__version__ = "0.1.0"
