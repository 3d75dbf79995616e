"""Seldon's protocol as protobuf: ``prediction_pb2`` has the messages, ``prediction_pb2_grpc`` the services.

The files are described in Python and registered in protobuf's default pool on first import, so that they work with
every release of protobuf from 4.25 and there is nothing to generate. Both modules look like generated ones.
"""

from __future__ import annotations

from typing import Final

from servegraph.importing import import_extra

# What is missing is told here, once for the modules below.
import_extra("google.protobuf", feature="Seldon's protobuf messages", extra="grpc")

__all__: Final[list[str]] = []
