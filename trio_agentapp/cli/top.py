"""`top`: a live table of nodes and their runs in the terminal, from the admin routes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConnectionLost, UnexpectedAnswer
from .exits import ExitCode
from .options import AsJson, ClientCert, ClientKey
from .target import Access, url_of
from .terminal import write, write_json, write_table

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["top"]

TIMEOUT = 5.0
"""Seconds for a node to answer. One that is slower is shown as unreachable."""

AdminToken = Annotated[
    str,
    typer.Option("--token", envvar="AGENTAPP_ADMIN_TOKEN", help="The admin token of the nodes.", show_envvar=True),
]


def top(
    node: Annotated[list[str], typer.Argument(help="URLs of nodes, or ids of deployments.")],
    token: AdminToken,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Show at most so many runs of each node.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print one table, and exit.")] = False,
    cert: ClientCert = None,
    key: ClientKey = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Show nodes and their live runs, again and again until Ctrl-C."""
    import trio

    from ..client.http_api import system_context

    nodes = [Node(url_of(each) or each, token, limit) for each in node]
    tls = Access(cert=cert, key=key).ssl_context() or system_context()
    if as_json:
        trio.run(_look, nodes, tls)
        write_json([each.shown() for each in nodes])
    elif once:
        trio.run(_look, nodes, tls)
        time.sleep(interval)
        trio.run(_look, nodes, tls)
        _print(nodes)
    else:
        trio.run(_follow, nodes, tls, interval)
    return ExitCode.UNREACHABLE if all(each.trouble for each in nodes) else ExitCode.OK


class Node:
    """One node, as the last two looks have found it."""

    def __init__(self, url: str, token: str, limit: int) -> None:
        self.url = url
        self.trouble: str | None = None
        self.status: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._limit = limit
        self._headers = {"Authorization": f"Bearer {token}"}

    async def look(self, client: httpx.AsyncClient) -> None:
        """Read the state of the node. What fails is kept in `trouble`."""
        try:
            status = await self._get(client, "/admin/status")
            runs = await self._get(client, f"/admin/runs?limit={max(1, self._limit)}")
        except (ConnectionLost, UnexpectedAnswer) as error:
            self.trouble = str(error)
            return
        self.trouble = None
        self._before, self.status, self.runs = self.status, status, runs

    async def _get(self, client: httpx.AsyncClient, path: str) -> dict[str, Any]:
        import httpx

        from ..client.failures import connection_failed

        try:
            response = await client.get(self.url + path, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionLost(f"it does not answer: {connection_failed(error)}") from error
        if response.status_code != httpx.codes.OK:
            raise UnexpectedAnswer(
                {401: "the admin token is wrong", 404: "it has no admin token"}.get(
                    response.status_code, f"it answers {response.status_code}"
                )
            )
        try:
            found: dict[str, Any] = response.json()
        except ValueError as error:
            raise UnexpectedAnswer("it is no agent") from error
        return found

    def rate(self, name: str) -> float | None:
        """How much a counter has grown each second since the look before. None after a restart, or at first."""
        if not self._before or self._before["node"] != self.status["node"]:
            return None
        seconds = self.status["time"] - self._before["time"]
        return float((self.status[name] - self._before[name]) / seconds) if seconds > 0 else None

    def shown(self) -> dict[str, Any]:
        return {"url": self.url, "trouble": self.trouble, "status": self.status, "runs": self.runs.get("runs", [])}

    def cells(self) -> list[str]:
        if self.trouble is not None:
            return [self.url, self.trouble]
        status = self.status
        state = "ready" if status["ready"] else _shown(str(status["reason"]))
        cpu = self.rate("cpu_s")
        return [
            self.url,
            state,
            str(status["runs_active"]),
            str(status["runs_queued"]),
            str(len(status["stuck"])),
            _number(self.rate("runs_ended")),
            _number(self.rate("events")),
            str(status["subscribers"]),
            "" if cpu is None else f"{cpu * 100:.0f} %",
            f"{status['loop_lag_s'] * 1000:.0f} ms",
            str(status["tasks"]),
        ]

    def run_cells(self) -> list[list[str]]:
        if self.trouble is not None or self._limit == 0:
            return []
        return [
            [
                run["run_id"][:12],
                _shown(run["session_id"])[:24],
                "stuck" if run["stuck"] else run["phase"],
                f"{run['age_s']:.1f}",
                str(run["events"]),
                str(run["subscribers"]),
                _shown(run["entry"]),
                self.url.partition("://")[2],
            ]
            for run in self.runs["runs"]
        ]


NODES = ("NODE", "STATE", "RUNS", "QUEUED", "STUCK", "ENDED/S", "EVENTS/S", "READERS", "CPU", "LAG", "TASKS")
RUNS = ("RUN", "SESSION", "PHASE", "AGE S", "EVENTS", "READERS", "ENTRY", "NODE")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


async def _look(nodes: list[Node], tls: ssl.SSLContext) -> None:
    import httpx
    import trio

    async with (
        httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, verify=tls) as client,
        trio.open_nursery() as nursery,
    ):
        for node in nodes:
            nursery.start_soon(node.look, client)


async def _follow(nodes: list[Node], tls: ssl.SSLContext, interval: float) -> None:
    import trio
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            await _look(nodes, tls)
            live.update(_tables(nodes), refresh=True)
            await trio.sleep(interval)


def _tables(nodes: list[Node]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables = []
    for heads, rows in ((NODES, [each.cells() for each in nodes]), (RUNS, _runs_of(nodes))):
        table = Table(box=None, header_style="bold", pad_edge=False)
        for place, head in enumerate(heads):
            # In a narrow terminal the first column gives way: it is the longest, and can be read on several lines.
            table.add_column(head, no_wrap=place > 0, overflow="ellipsis" if place else "fold")
        for row in rows:
            # As Text: an id may have brackets, which would be markup.
            table.add_row(*map(Text, row))
        tables.append(table)
    return Group(tables[0], "", tables[1])


def _runs_of(nodes: list[Node]) -> list[list[str]]:
    return [row for each in nodes for row in each.run_cells()]


def _print(nodes: list[Node]) -> None:
    for heads, rows in ((NODES, [each.cells() for each in nodes]), (RUNS, _runs_of(nodes))):
        write_table(heads, rows)
        write("")


def _shown(text: str) -> str:
    # Imported only if needed: the command line starts without the protocol's classes.
    from ..protocol.text import escaped

    return escaped(text)
