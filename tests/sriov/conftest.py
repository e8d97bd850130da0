"""Runs the tests of `guest/` in an emulated machine: the host collects them, the guest runs them, the host reports.

One decision to know: both run pytest on the same files of the same environment. The guest sends its reports as they
come, in pytest's own form; here they are only handed on. What the guest never said of a test is that test's failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `machine` and others beside this file

import outcomes
from kernel import MissingError
from machine import built
from run import Run

_INSIDE = os.environ.get("MESHWRIGHT_GUEST")
_HERE = Path(__file__).parent


def _is_guests(item: pytest.Item) -> bool:
    return item.path.is_relative_to(_HERE / "guest")


def pytest_configure(config: pytest.Config) -> None:
    if _INSIDE:
        config.pluginmanager.register(outcomes.Sender(config, Path(_INSIDE) / "outcomes"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not _INSIDE:
        for item in items:
            if _is_guests(item):
                item.add_marker(pytest.mark.timeout(0))  # the run as a whole has a deadline


def pytest_collection_finish(session: pytest.Session) -> None:
    session.stash[_KEY] = Runs(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if _INSIDE or not _is_guests(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in item.session.stash[_KEY].reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _KEY in session.stash:
        session.stash[_KEY].end()


class Runs:
    """The session's one run of the guest, begun by the first test that wants it."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._run: Run | None = None
        self._missing = ""

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Wait for what the guest says of this test."""
        if self._run is None and not self._missing:
            wanted = [each.nodeid for each in self._session.items if _is_guests(each)]
            try:
                self._run = Run(built(), wanted)
            except MissingError as missing:
                self._missing = str(missing)
        if self._run is None:
            yield outcomes.skipped(item, f"no guest: {self._missing}")
            return
        for outcome in self._run.outcomes(item.nodeid):
            yield item.config.hook.pytest_report_from_serializable(config=item.config, data=outcome)
        if self._run.fault:
            yield outcomes.failed(item, self._run.fault)

    def end(self) -> None:
        """Power the guest off."""
        if self._run is not None:
            self._run.end()


_KEY = pytest.StashKey[Runs]()
