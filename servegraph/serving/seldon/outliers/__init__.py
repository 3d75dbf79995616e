"""Outlier detectors: input transformers that let requests through unchanged and say how unusual they are."""

from servegraph.serving.seldon.outliers.isolation import IsolationForestDetector
from servegraph.serving.seldon.outliers.mahalanobis import MahalanobisDetector

__all__ = ["IsolationForestDetector", "MahalanobisDetector"]
