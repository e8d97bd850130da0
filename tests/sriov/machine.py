"""The emulated machine: two network cards with SR-IOV on one wire, an IOMMU, and the host's root read-only.

By hand: `python tests/sriov/machine.py` boots it with a shell on this terminal (leave it with `exit`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import initramfs
import kernel
from kernel import MissingError

_HERE = Path(__file__).parent
PROJECT = _HERE.parents[1]
CACHE = PROJECT / "build" / "guest"
_QEMU = "qemu-system-x86_64"


@dataclass(frozen=True)
class Machine:
    """A machine whose runs each have a folder of their own."""

    image: Path
    initrd: Path

    def start(self, folder: Path, mode: str, **options: object) -> subprocess.Popen[bytes]:
        """Boot it; `folder` is the guest's /mnt, and the process is QEMU's."""
        settings = {"MODE": mode, "PROJECT": PROJECT, "PYTHON": sys.executable}
        (folder / "environment").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
        return subprocess.Popen(self._command(folder), **options)  # type: ignore[call-overload]

    def _command(self, folder: Path) -> list[str]:
        serial = "mon:stdio" if not (folder / "tests").exists() else f"file:{folder}/console"
        shared, disk = "security_model=none,multidevs=remap", "virtio-9p-pci"
        card = "igb,bus=port{0},netdev=wire{0},mac=52:54:00:aa:00:0{0}"
        arguments = [
            # No KVM: this has to run where virtual machines can't be nested. The IOMMU wants the split interrupt chip.
            "-accel", "tcg,thread=multi", "-machine", "q35,kernel-irqchip=split", "-cpu", "max,la57=off",
            "-smp", "2", "-m", "2048", "-nodefaults", "-no-reboot", "-display", "none", "-serial", serial,
            "-device", "intel-iommu,intremap=on,caching-mode=on",
            "-fsdev", f"local,id=root,path=/,readonly=on,{shared}", "-device", f"{disk},fsdev=root,mount_tag=root",
            "-fsdev", f"local,id=out,path={folder},{shared}", "-device", f"{disk},fsdev=out,mount_tag=out",
        ]  # fmt: skip
        for number in (0, 1):
            arguments += [
                "-netdev", f"hubport,id=wire{number},hubid=0",
                "-device", f"pcie-root-port,id=port{number},slot={number},chassis={number}",
                "-device", card.format(number),
            ]  # fmt: skip
        line = (
            "console=ttyS0 quiet panic=-1 intel_iommu=on mitigations=off audit=0 hugepagesz=2M hugepages=64 "
            f"meshwright.run={_HERE}/inside.sh"
        )
        return [_QEMU, *arguments, "-kernel", str(self.image), "-initrd", str(self.initrd), "-append", line]


def built() -> Machine:
    """Return the machine, made at the first time; raise MissingError when this host can't."""
    if not shutil.which(_QEMU):
        raise MissingError(f"no {_QEMU} (.ci/install gets it)")
    version = subprocess.run([_QEMU, "-device", "help"], capture_output=True, text=True, timeout=60, check=True).stdout
    if '"igb"' not in version:
        raise MissingError(f"this {_QEMU} has no igb, which came with QEMU 8 (.ci/install gets one from backports)")
    if not (busybox := shutil.which("busybox")):
        raise MissingError("no busybox (.ci/install gets busybox-static)")
    if os.getuid() != 0:
        raise MissingError("the guest runs on the host's own files, which only root may all read")
    fetched = kernel.fetched(CACHE)
    initrd = CACHE / "initrd"
    fresh = initrd.with_suffix(f".{os.getpid()}")
    initramfs.write(fresh, fetched, Path(busybox), _HERE / "init")
    fresh.rename(initrd)
    return Machine(fetched.image, initrd)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="guest") as name:
        sys.exit(built().start(Path(name), "shell").wait())
