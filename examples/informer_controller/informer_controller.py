"""A controller: keeps a list of GPUs that may be used, by an informer and a queue of names.

The handlers only say *which* GPU changed. One worker compares what is with what should be, however
many changes there were meanwhile, so a missed or a repeated event does no harm.
"""

from __future__ import annotations

import queue

from device_api_core.client import Clientset, GpuInformer, is_healthy
from device_api_core.client.errors import NotFound

MAX_AGE_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 5.0


class Controller:
    """Decides for each GPU whether it may be used."""

    def __init__(self, informer: GpuInformer) -> None:
        self._informer = informer
        self._names: queue.Queue[str] = queue.Queue()
        self._usable: dict[str, bool] = {}
        informer.add_handler(
            on_add=lambda gpu: self._names.put(gpu.name),
            on_update=lambda old, new: self._names.put(new.name),
            on_delete=lambda gpu: self._names.put(gpu.name),
        )

    def run(self) -> None:
        """Work until interrupted."""
        while True:
            try:
                self.reconcile(self._names.get(timeout=LOOK_AGAIN_SECONDS))
            except queue.Empty:
                # Nothing changed; but what is known may have become too old to be believed.
                for name in list(self._usable):
                    self.reconcile(name)

    def reconcile(self, name: str) -> None:
        """Let one GPU be used or not, as it should be now. May be repeated."""
        try:
            gpu = self._informer.lister.get(name)
        except NotFound:
            if self._usable.pop(name, None) is not None:
                print(f"{name}: gone", flush=True)
            return
        usable = is_healthy(gpu) and not self._informer.is_stale(MAX_AGE_SECONDS)
        if self._usable.get(name) != usable:
            self._usable[name] = usable
            why = "" if usable else f" ({gpu.status.recommended_action or 'no action known'})"
            print(f"{name}: {'use' if usable else 'do not use'}{why}", flush=True)


def main() -> None:
    with Clientset.connect() as clients, GpuInformer(clients.v1alpha1.gpus) as informer:
        informer.wait_for_sync()
        Controller(informer).run()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
