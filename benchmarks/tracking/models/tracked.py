"""servegraph: two models that take rows of twenty features, recorded where the environment names a stream."""

import os

import numpy as np
from sklearn.linear_model import LogisticRegression

import servegraph


class Classifier(servegraph.V2ModelServer):
    def load(self):
        rows = np.random.default_rng(0).random((500, 20))
        self.model = LogisticRegression().fit(rows, rows.sum(axis=1) > 10)

    def predict(self, request):
        return self.model.predict(request["inputs"]).astype(int).tolist()


class Constant(servegraph.V2ModelServer):
    def load(self):
        self.model = 1

    def predict(self, request):
        return [self.model] * len(request["inputs"])


function = servegraph.new_function("tracked", kind="serving")
function.set_topology("router")
function.add_model("classifier", class_name=Classifier, model_path=".")
function.add_model("constant", class_name=Constant, model_path=".")
if os.environ.get("BENCH_STREAM"):
    function.set_tracking(os.environ["BENCH_STREAM"])
