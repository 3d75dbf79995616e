"""What a served model's owner sees of it: records, metrics, drift. It never fails or slows a prediction."""

from servegraph.monitoring.tap import Tap, TapStats

__all__ = ["Tap", "TapStats"]
