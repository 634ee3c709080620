"""The log lines about GPUs: one for each change, with its evidence."""

from __future__ import annotations

import logging

from device_api_core.resources import Condition, ConditionStatus, GpuSpec
from device_api_nvml.board import Board
from device_api_nvml.xid import Xid

_log = logging.getLogger(__name__)


def mig(board: Board, spec: GpuSpec) -> None:
    before = board.spec.mig_mode if board.spec else ""
    if before and spec.mig_mode != before:
        _log.info("MIG mode is %s", spec.mig_mode or "unknown", extra={"gpu": board.name})


def xid(board: Board, xid: Xid, *, news: bool) -> None:
    # A storm of one code is one line.
    level = logging.WARNING if news else logging.DEBUG
    extra = {"gpu": board.name, "xid": xid.code, "effect": str(xid.effect)}
    _log.log(level, "XID %d", xid.code, extra=extra)


def change(board: Board, condition: Condition, action: str) -> None:
    before = board.told.get(condition.type)
    if before and (before[0].status, before[0].reason) == (condition.status, condition.reason):
        return
    level = logging.INFO if condition.status is ConditionStatus.TRUE else logging.WARNING
    _log.log(
        level,
        "%s is %s",
        condition.type,
        condition.status,
        extra={
            "gpu": board.name,
            "reason": condition.reason,
            "detail": condition.message,
            "action": action,
        },
    )
