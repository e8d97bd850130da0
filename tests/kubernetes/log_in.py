"""Runs in a part's pod: shows citadel the token that comes on standard input, and asks to be a part.

python -c PROGRAM ADDRESS FOLDER PART: prints what came of it.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from meshwright.core import errors
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.first_certificate import KubernetesLogin
from meshwright.core.identity import part_id


async def main(address, folder, part):
    """Log in once."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(sys.stdin.read())
        file.flush()
        first = KubernetesLogin(address, Path(folder), Path(file.name))
        try:
            async with CitadelIdentity(part_id("mesh.local", part), first=first, patience=0.0) as identity:
                print(identity.current().spiffe_id)
        except errors.MeshwrightError as error:
            print(f"{type(error).__name__}: {error}")


asyncio.run(main(*sys.argv[1:]))
