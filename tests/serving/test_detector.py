"""What loading tries before any caller does."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from amiss_export.errors import BundleRefused
from amiss_serving.detector import load_detector
from amiss_serving.runtimes import RuntimeOptions
from bundle_factory import table_graph, write_table_bundle


def test_every_batch_size_is_warmed_up_for_every_set_of_outputs(tmp_path: Path) -> None:
    """A reconstruction that fails on eight rows alone is found at load when eight are warmed up."""
    graph = table_graph(3)
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 3]), "one_row"))
    graph.graph.node[-1].CopyFrom(helper.make_node("Reshape", ["x", "one_row"], ["reconstruction"]))
    version = write_table_bundle(tmp_path, graph=graph)
    load_detector(tmp_path, "table", version, options=RuntimeOptions(device="cpu"))
    options = RuntimeOptions(device="cpu", warm_up_rows=(8,))
    with pytest.raises(BundleRefused, match=r"does not take float32 \(8, 3\)"):
        load_detector(tmp_path, "table", version, options=options)
