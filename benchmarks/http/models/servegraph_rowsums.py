"""servegraph: the model as a user would write it."""

import numpy as np

import servegraph


class RowSums(servegraph.V2ModelServer):
    def load(self):
        self.model = True

    def predict(self, request):
        return np.asarray(request["inputs"]).sum(axis=1)


function = servegraph.new_function("rowsums", kind="serving")
function.set_topology("router")
function.add_model("rowsums", class_name=RowSums, model_path=".")
