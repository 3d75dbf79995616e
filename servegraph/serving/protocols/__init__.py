"""Protocols: how the bytes and bodies of one convention become those of a model, and back."""
