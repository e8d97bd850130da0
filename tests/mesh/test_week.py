"""Stopped for a week, the platform starts: no certificate of before is needed to get new ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from meshwright_up import free_base_port, meshwright, running

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

WEEK = 7 * 24 * 3600

# Moves the wall clock of the processes that load it, and only that: timers go on as they are.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    const char *text = getenv("CLOCK_SHIFT_SECONDS");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, out);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def shifted_clock(tmp_path: Path) -> dict[str, str]:
    """The environment in which libc's wall clock is a week ahead."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) for the library that moves the clock")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT_SECONDS": str(WEEK)}


def test_starts_after_a_week(data: Path, shifted_clock: dict[str, str]) -> None:
    """Everything becomes healthy, what was configured is still there, and new certificates are of the new time."""
    base = free_base_port()
    document = data / "namespace.yaml"
    document.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: kept}\n")
    environment = {"MESHWRIGHT_DATA": str(data)}
    with running(data, base_port=base) as up:
        up.wait_healthy()
        applied = meshwright("apply", "-f", document, **environment)
        assert applied.returncode == 0, applied.stderr
        before = certificate(data)
    with running(data, base_port=base, **shifted_clock) as up:
        up.wait_healthy()
        after = certificate(data)
        assert (after.not_valid_before_utc - before.not_valid_before_utc).total_seconds() > WEEK - 3600
        assert after.not_valid_before_utc > before.not_valid_after_utc
        found = meshwright("get", "Namespace", "-o", "json", **environment, **shifted_clock)
        assert found.returncode == 0, found.stderr
        assert "kept" in json.dumps(json.loads(found.stdout))


def certificate(data: Path) -> x509.Certificate:
    """The administrator's certificate."""
    return x509.load_pem_x509_certificate((data / "pki" / "admin" / "cert.pem").read_bytes())
