"""What can go wrong with a fake node.

FakeNodeError
├── NodeNotFound      the directory holds no node, or one of another version of this package
├── NodeExists        a node is there already
├── GpuNotFound       no GPU of that number or UUID
├── SignalNotFound    no signal of that name, or it has no such element
├── FunctionNotFound  the library has no NVML function of that name
└── Refused           not possible with this node as it is; the message says why
"""

from __future__ import annotations


class FakeNodeError(Exception):
    pass


class NodeNotFound(FakeNodeError):
    pass


class NodeExists(FakeNodeError):
    pass


class GpuNotFound(FakeNodeError):
    pass


class SignalNotFound(FakeNodeError):
    pass


class FunctionNotFound(FakeNodeError):
    pass


class Refused(FakeNodeError):
    pass
