"""The fake service, and one way to ask it through either client."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from amiss_client import AsyncClient, Client
from client.fake_service import Ask, FakeService, running


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A running fake service; the caller's own AMISS_TOKEN stays out of the tests."""
    monkeypatch.delenv("AMISS_TOKEN", raising=False)
    with running(FakeService()) as running_service:
        yield running_service


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, service: FakeService) -> Ask:
    """ask("score_table", ..., options={...}): one method of a fresh client, of either kind."""

    def through_client(
        method: str, *args: Any, options: dict[str, Any] | None = None, **kw: Any
    ) -> Any:
        with Client(**{"address": service.address, **(options or {})}) as client:
            return getattr(client, method)(*args, **kw)

    def through_async_client(
        method: str, *args: Any, options: dict[str, Any] | None = None, **kw: Any
    ) -> Any:
        async def go() -> Any:
            async with AsyncClient(**{"address": service.address, **(options or {})}) as client:
                return await getattr(client, method)(*args, **kw)

        return asyncio.run(go())

    return through_client if request.param == "sync" else through_async_client
