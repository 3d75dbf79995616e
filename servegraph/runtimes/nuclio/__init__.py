"""Functions on Nuclio: `export` writes the function configuration, `handler` runs inside of Nuclio's worker."""
