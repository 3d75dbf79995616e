"""The nodes of the tree, whether they run in one process or in one each."""

import numpy as np


class Scale:
    def transform_input(self, X, names, meta=None):  # noqa: N803 - the name that Seldon gives
        return X * 2.0


class Pick:
    def route(self, X, names, meta=None):  # noqa: N803 - the name that Seldon gives
        return int(X[0, 0] > 1.0)


class Sums:
    def __init__(self, add=0.0):
        self.add = add

    def predict(self, X, names, meta=None):  # noqa: N803 - the name that Seldon gives
        return X.sum(axis=1, keepdims=True) + self.add


class Mean:
    def aggregate(self, X, names):  # noqa: N803 - the name that Seldon gives
        return np.mean(X, axis=0)
