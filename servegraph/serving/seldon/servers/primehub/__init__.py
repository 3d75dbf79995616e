"""The model servers of PrimeHub's images, each a class ``Model``."""
