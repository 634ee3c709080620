"""A transport of device-api-server for unix sockets and loopback: gRPC over libnghttp2."""

from __future__ import annotations

from device_api_transport_h2.transport import H2Transport

__all__ = ["H2Transport"]
