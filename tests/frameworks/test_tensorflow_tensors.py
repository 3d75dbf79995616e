from __future__ import annotations

import subprocess
import sys
import textwrap

from framework_modules import framework

framework("tensorflow", "tensorflow-cpu")


def test_tensors_are_those_of_the_real_tensorflow() -> None:
    code = """
        from servegraph.serving.seldon import tftensor
        from servegraph.serving.seldon.proto import prediction_pb2
        import numpy as np
        import tensorflow as tf
        for dtype in "f4 f8 i4 u1 i2 i1 c8 i8 ? u2 c16 f2 u4 u8".split():
            for array in (np.array(2, dtype), np.array([3], dtype), np.array([[1, 2], [0, 1]], dtype)):
                theirs = tf.make_tensor_proto(array)
                assert type(theirs) is prediction_pb2.TensorProto
                for read in (tftensor.from_proto(theirs), tf.make_ndarray(tftensor.to_proto(array))):
                    assert read.dtype == array.dtype and np.array_equal(read, array) and read.shape == array.shape
        print("equal")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr
