"""A provider that does what the test at the other end of a connection tells it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Client

from conformant import acts
from device_api_core.errors import DeviceApiError, SinkClosed
from device_api_core.plugins import hookimpl


class Conformant:
    name = "conformant"
    contract_version = 1
    types = (acts.FAN, "conformant.example.com/*")
    reboot_proof_types = ()

    def __init__(self, options):
        self._control = options["control"]
        self.interval_seconds = options.get("interval", 10.0)
        self._cleared = []

    def clear(self, gpu, type):
        self._cleared.append((gpu, type))
        self._connection.send(("cleared", gpu, type))

    def run(self, sink, stop):
        with Client(self._control) as connection:
            self._connection = connection
            connection.send(("started", os.getpid()))
            while not stop.is_set():
                if connection.poll(0.02):
                    self._obey(sink, connection, *connection.recv())

    def _obey(self, sink, connection, number, name, args, kwargs):
        if name == "crash":
            raise RuntimeError("conformant crash")
        if name == "hang":
            time.sleep(1e6)
        if name == "killed":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        def act():
            try:
                answer = ("done", number, getattr(acts, name)(sink, *args, **kwargs))
            except (DeviceApiError, RuntimeError) as error:
                message = getattr(error, "message", str(error))
                kind = "SinkClosed" if isinstance(error, SinkClosed) else type(error).__name__
                answer = ("raised", number, kind, message)
            connection.send(answer)

        # A thread for each: a provider may call its sink from any, and some of these wait.
        threading.Thread(target=act, daemon=True).start()


@hookimpl
def device_api_provider(options):
    return Conformant(options)
