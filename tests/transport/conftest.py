"""Both ends of a connection over each transport."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transport.setups import Ends, Memory, Setup, Tcp, TlsOverMemory, TlsOverTcp, Unix, connected


@pytest.fixture(
    params=[Tcp, Unix, Memory, TlsOverTcp, TlsOverMemory], ids=["tcp", "unix", "memory", "tls-tcp", "tls-memory"]
)
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Setup:
    made: Setup = request.param(tmp_path)
    return made


@pytest.fixture
async def ends(setup: Setup) -> AsyncIterator[Ends]:
    dialled, accepted = await connected(setup)
    yield dialled, accepted
    dialled.close()
    accepted.close()
