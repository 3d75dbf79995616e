"""Seldon components and inference graphs: the same classes, the same answers, on servegraph's engine."""
