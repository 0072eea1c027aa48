import asyncio

import pytest
from cloudach_inference.replica import late_cancel
from cloudach_inference.replica.late_cancel import LateCancel, Message, Receive, Send


async def nothing(_: Message) -> None: ...


async def cancel_when(middleware: LateCancel, started: asyncio.Event, receive: Receive) -> None:
    """As Serve does when the client has gone."""
    task = asyncio.ensure_future(middleware({"type": "http"}, receive, nothing))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_application_hears_of_the_disconnect_first() -> None:
    heard: list[str] = []
    started = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        # As vLLM does: the work in a task of its own, ended when the disconnect is heard.
        work = asyncio.ensure_future(asyncio.sleep(600))
        started.set()
        heard.append((await receive())["type"])
        work.cancel()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await cancel_when(LateCancel(app), started, receive)
    assert heard == ["http.disconnect"]


async def test_application_that_does_not_listen_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_cancel, "_PATIENCE_S", 0.01)
    ended: list[str] = []
    started = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await cancel_when(LateCancel(app), started, receive)
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


async def test_errors_and_answers_pass() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise ValueError("broken")
        await send({"type": "http.response.start"})

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        return {"type": "http.request"}

    await LateCancel(app)({"type": "http", "path": "/"}, receive, send)
    assert sent == ["http.response.start"]
    with pytest.raises(ValueError, match="broken"):
        await LateCancel(app)({"type": "http", "path": "/broken"}, receive, send)
