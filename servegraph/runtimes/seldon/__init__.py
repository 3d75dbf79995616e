"""Seldon components and deployments served: the command, the edges, the tools."""
