"""The core of device-api: cache, gate, gRPC services and the plugin host."""

__version__ = "0.1.0"
