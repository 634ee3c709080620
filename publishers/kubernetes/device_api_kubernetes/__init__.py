"""The Kubernetes publisher of device-api."""

__version__ = "0.1.0"
