"""Seldon Core 1.18; its runner imports the class by the name of the file."""


class RowSums:
    def predict(self, X, names, meta=None):  # noqa: N803 - the name that Seldon gives
        return X.sum(axis=1)
