"""A kubelet device plugin whose knowledge of GPUs is the Device API's."""

__version__ = "0.1.0"
