"""A cable between clients and nodes: a TCP relay that a test can cut, mend and move.

It stands for the network and for a load balancer without stickiness, so that SDKs stay unmodified
and lose their connection as they would outside."""

import asyncio
import contextlib


class Cable:
    """Relays each new connection to the first of its nodes that accepts it, taking turns."""

    def __init__(self, *nodes):
        self._nodes = list(nodes)
        # Where the newest connection went.
        self.node = None
        self._turn = 0
        self._server = None
        self._port = 0
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        await self.cut()

    @property
    def ws(self):
        return f"ws://127.0.0.1:{self._port}/connection/websocket"

    def to(self, *nodes):
        """New connections go to these nodes from now on."""
        self._nodes, self._turn = list(nodes), 0

    async def cut(self):
        """Resets all connections and accepts no new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    async def mend(self):
        """Accepts connections again, on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def drop(self):
        """Resets the connections that are open; new ones are accepted."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            node_reader, node_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(node_writer)
        try:
            await asyncio.gather(self._relay(reader, node_writer), self._relay(node_reader, writer))
        finally:
            for end in (writer, node_writer):
                self._writers.discard(end)
                end.close()

    async def _dial(self):
        for _ in self._nodes:
            node = self._nodes[self._turn % len(self._nodes)]
            self._turn += 1
            with contextlib.suppress(OSError):
                ends = await asyncio.open_connection(node.host, node.port)
                self.node = node
                return ends
        raise ConnectionRefusedError("no node accepts connections")

    @staticmethod
    async def _relay(reader, writer):
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
