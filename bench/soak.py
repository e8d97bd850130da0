"""`python -m bench.soak`: millions of calls against one native server, whose memory and descriptors must stay flat.

The load is unary calls with mutual TLS; beside it go streams, cancelled calls, passed deadlines and descriptors over
the Unix socket. Memory may grow while caches, pools and the allocator's arenas fill: what counts is the time after.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from tests.pki import Pki

from bench import measure
from bench.soak_server import SERVICE
from meshwright.core import identity
from meshwright.dataplane.grpc import NativeChannel

WINDOW_SECONDS = 20
WARM_SHARE = 0.2  # of the calls, before memory counts
GROWTH_BYTES = 8 << 20
PAUSE_SECONDS = 0.02  # between rounds of the mix, so that the load is the load
CLOSING_SECONDS = 30
MESSAGE = b"x" * 100


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    calls: int
    seconds: float
    resident: int
    descriptors: int


class Mix:
    """One round after another of everything that isn't a plain unary call."""

    def __init__(self, channel: NativeChannel) -> None:
        self.rounds = 0
        self._channel = channel
        self._chat = channel.stream_stream(f"/{SERVICE}/Chat")
        self._wait = channel.unary_unary(f"/{SERVICE}/Wait")
        self._exchange = channel.unary_unary(f"/{SERVICE}/Exchange")

    async def run(self) -> None:
        """Go on until cancelled; ends with the first error."""
        while True:
            await self._stream()
            await self._cancel()
            await self._exceed()
            await self._pass_descriptors()
            self.rounds += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _stream(self) -> None:
        call = self._chat(iter([MESSAGE] * 20), timeout=60)
        assert [answer async for answer in call] == [MESSAGE] * 20

    async def _cancel(self) -> None:
        calls = [self._wait(MESSAGE, timeout=60) for _ in range(5)]
        stream = self._chat(timeout=60)
        await stream.write(MESSAGE)
        assert await stream.read() == MESSAGE
        for call in [*calls, stream]:
            call.cancel()
        for call in calls:
            with contextlib.suppress(asyncio.CancelledError):
                await call

    async def _exceed(self) -> None:
        assert await self._wait(MESSAGE, timeout=0.005).code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def _pass_descriptors(self) -> None:
        """Several files, one of them twice; one that nobody takes."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
            *asked, _ = files
            calls = []
            for file in [*files, asked[0]]:
                self._channel.send_descriptor(file.fileno())
            for file in [*asked, asked[0]]:
                status = os.fstat(file.fileno())
                calls.append(self._exchange(f"{status.st_dev}/{status.st_ino}".encode(), timeout=60))
            for answer in await asyncio.gather(*calls):
                device, inode = map(int, answer.split(b"/"))
                os.close(await self._channel.descriptors.take(device, inode, 30))


def sample(pid: int, calls: int, seconds: float) -> Sample:
    """Read the server's memory and descriptors from the kernel."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(calls, seconds, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))


def show(taken: Sample, rounds: int) -> None:
    """Print one line."""
    print(
        f"{taken.seconds:7.0f} s {taken.calls:11,} calls {rounds:7,} mixed rounds "
        f"{taken.resident / (1 << 20):8.1f} MiB {taken.descriptors:5} descriptors",
        flush=True,
    )


async def soak(calls: int) -> str | None:
    """Run; return what isn't flat."""
    programs = measure.floors()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pki = Pki()
        served, client = (
            Pki.write(pki.part("mixer"), folder / "server"),
            Pki.write(pki.workload("bench"), folder / "client"),
        )
        (folder / "message").write_bytes(MESSAGE)
        command = [sys.executable, "-m", "bench.soak_server", str(served), str(folder / "x.sock")]
        server = stack.enter_context(measure.process(*command, core=measure.SERVER_CORE))
        address = measure.first_line(server)
        load = [
            "--target",
            address,
            "--tls",
            str(client),
            "--domain",
            identity.part_dns("mixer"),
            "--path",
            f"/{SERVICE}/Echo",
        ]
        load += ["--message", str(folder / "message"), "--milliseconds", str(WINDOW_SECONDS * 1000)]
        began = time.monotonic()
        samples = [sample(server.pid, 0, 0)]
        show(samples[0], 0)
        channel = NativeChannel(f"unix:{folder}/x.sock", identity.FileIdentity(client))
        async with channel:
            mix = Mix(channel)
            mixing = asyncio.create_task(mix.run(), name="mix")
            while samples[-1].calls < calls:
                loading = asyncio.create_task(asyncio.to_thread(measure.load, programs, load), name="load")
                await asyncio.wait([mixing, loading], return_when=asyncio.FIRST_COMPLETED)
                if mixing.done():
                    mixing.result()
                done = samples[-1].calls + int((await loading)["calls"])
                samples.append(sample(server.pid, done, time.monotonic() - began))
                show(samples[-1], mix.rounds)
            mixing.cancel()
            await asyncio.gather(mixing, return_exceptions=True)
        cpu = measure.cpu_us(server.pid) / samples[-1].calls
        print(f"{cpu:.1f} µs of CPU a unary call, the mix included")
        return verdict(samples, closed(server.pid, samples[0].descriptors), calls)


def closed(pid: int, descriptors: int) -> int:
    """Wait until the server holds no more descriptors than at first; return how many it holds."""
    deadline = time.monotonic() + CLOSING_SECONDS
    while (left := sample(pid, 0, 0).descriptors) > descriptors and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def verdict(samples: list[Sample], descriptors: int, calls: int) -> str | None:
    """Compare the first and the last part of the time after warming up, and the descriptors before and after."""
    warm = [taken for taken in samples if taken.calls >= calls * WARM_SHARE]
    part = max(1, len(warm) // 4)
    before, after = (max(taken.resident for taken in part) for part in (warm[:part], warm[-part:]))
    print(f"after warming up {before / (1 << 20):.1f} MiB, at the end {after / (1 << 20):.1f} MiB, ", end="")
    print(f"{descriptors} descriptors of {samples[0].descriptors} at first")
    if after - before > GROWTH_BYTES:
        return f"memory grew by {after - before:,} bytes after warming up; allowed are {GROWTH_BYTES:,}"
    # The event loop and the runtime open theirs with the first call.
    if descriptors > samples[0].descriptors:
        return f"{descriptors} descriptors are open when all have gone; at first it were {samples[0].descriptors}"
    return None


def main() -> int:
    """Run; status 1 when something grows."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000, help="unary calls (default: ten million)")
    fault = asyncio.run(soak(parser.parse_args().calls))
    if fault:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
