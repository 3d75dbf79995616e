"""``seldon_core.serving_test_gen``."""

from __future__ import annotations

from servegraph.serving.seldon.contract_writing import create_seldon_api_testing_file

__all__ = ["create_seldon_api_testing_file"]
