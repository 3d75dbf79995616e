"""The modules of ``seldon_core`` that run servers and show metrics; see `servegraph.serving.seldon.names`."""
