"""Names in Python's style."""

from __future__ import annotations

import re


def snake(name: str) -> str:
    """``nv_switch`` for ``NvSwitch``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def group(package: str) -> str:
    """The last part of a proto package, which names the clientset's attribute: ``v1alpha1``."""
    return package.rpartition(".")[2]


def group_class(package: str) -> str:
    """The class of that attribute: ``V1Alpha1``."""
    return re.sub(r"[a-z]+", lambda letters: letters[0].capitalize(), group(package))
