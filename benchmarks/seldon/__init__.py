"""Seldon components and graphs: the same component on Seldon Core's runtime, the same tree with its nodes apart."""
