"""Servegraph side by side with the servers and graphs it wants to replace. Not part of the package."""
