"""The loop's end of the hand-over from Rust: one mailbox for each event loop, made when it is first needed."""

import asyncio
import weakref

from meshwright.dataplane import _native

_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _native.Mailbox] = weakref.WeakKeyDictionary()


def of_running_loop() -> _native.Mailbox:
    """Return the running loop's mailbox. The loop watches its eventfd for as long as the loop lives."""
    loop = asyncio.get_running_loop()
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = _native.Mailbox()
        loop.add_reader(mailbox.fileno(), mailbox.drain)
    return mailbox
