"""Runs in a pod of the application, and knows nothing of the mesh: asks for an address again and again.

python - URL COUNT AT_ONCE [HEADER=VALUE...]; COUNT with an s behind it is a time in seconds. Prints what came of it
as JSON.
"""

import collections
import concurrent.futures
import json
import sys
import time
import urllib.error
import urllib.request


def ask(url, headers):
    """Ask once: status and body; status 0 for no answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, repr(error)


def version(body):
    """Return the version of the second service in the chain."""
    try:
        return json.loads(body)["upstream"]["version"]
    except (ValueError, KeyError, TypeError):
        return ""


def main(url, count, at_once, *headers):
    """Ask, and print statuses, versions, and the last body of each status."""
    headers = dict(header.split("=", 1) for header in headers)
    statuses, versions, bodies = collections.Counter(), collections.Counter(), {}
    end = time.monotonic() + float(count[:-1]) if count.endswith("s") else None
    left = float("inf") if end else int(count)
    with concurrent.futures.ThreadPoolExecutor(int(at_once)) as pool:
        while left > 0 and (end is None or time.monotonic() < end):
            number = int(min(left, int(at_once)))
            left -= number
            for status, body in pool.map(ask, [url] * number, [headers] * number):
                statuses[status] += 1
                versions[version(body)] += 1
                bodies[status] = body
    print(json.dumps({"statuses": statuses, "versions": versions, "bodies": bodies}))


main(*sys.argv[1:])
