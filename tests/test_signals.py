import asyncio
import os
import signal
import threading

from device_api_core.cli.signals import kept

TERM, USR1 = signal.SIGTERM, signal.SIGUSR1


def test_signals_are_heard_from_before_the_loop_on():
    """Also those that come while the loop sleeps; another thread sends them."""
    before = signal.getsignal(TERM)

    async def serve(signals):
        came, seen = asyncio.Event(), []
        signals.hear(lambda number: (seen.append(number), came.set()))
        await came.wait()
        assert seen == [TERM]
        came.clear()
        later = threading.Timer(0.05, os.kill, (os.getpid(), USR1))
        later.start()
        async with asyncio.timeout(10):
            await came.wait()
        await asyncio.to_thread(later.join)
        return seen

    with kept(TERM, USR1) as signals:
        os.kill(os.getpid(), TERM)
        assert asyncio.run(serve(signals)) == [TERM, USR1]
    assert signal.getsignal(TERM) is before


def test_other_signals_are_not_told():
    async def serve(signals):
        seen = []
        signals.hear(seen.append)
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), USR1)
        async with asyncio.timeout(10):
            while not seen:
                await asyncio.sleep(0)
        return seen

    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        with kept(USR1) as signals:
            assert asyncio.run(serve(signals)) == [USR1]
    finally:
        signal.signal(signal.SIGUSR2, before)
