"""The guest's first file system: a shell, the modules that it needs, and the script that mounts the host's root."""

from __future__ import annotations

from pathlib import Path

from kernel import Kernel

# What mounts the root, then what the tests use. All are loaded at once: the guest has no modprobe.
_MODULES = (
    "overlay", "9pnet_virtio", "9p",
    "igb", "igbvf", "vfio_pci", "vfio_iommu_type1",
    "veth", "tun", "8021q",
)  # fmt: skip


def write(path: Path, kernel: Kernel, busybox: Path, init: Path) -> None:
    """Write an archive for `-initrd`."""
    archive = bytearray()
    for folder in ("bin", "dev", "proc", "sys", "lower", "rw", "newroot", "modules"):
        archive += _entry(folder, 0o40755)
    archive += _entry("bin/busybox", 0o100755, busybox.read_bytes())
    archive += _entry("bin/sh", 0o120777, b"busybox")
    archive += _entry("init", 0o100755, init.read_bytes())
    for number, (name, module) in enumerate(kernel.modules(*_MODULES).items()):
        archive += _entry(f"modules/{number:02}-{name}", 0o100644, module)
    archive += _entry("TRAILER!!!", 0)
    path.write_bytes(archive)


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """Return one file in the archive format "newc" (kernel documentation, driver-api/early-userspace/buffer-format)."""
    raw = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    header = b"070701" + "".join(f"{value:08X}" for value in fields).encode() + raw
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
