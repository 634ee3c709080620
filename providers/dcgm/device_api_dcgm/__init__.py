"""The DCGM provider of device-api."""

__version__ = "0.1.0"
