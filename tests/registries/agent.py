"""A process that keeps an agent registered until it is killed: `python agent.py KIND PLACE PORT NAME`."""

import sys

import trio

from trio_agentapp.abc import A2ATransportsProperties
from trio_agentapp.registries import DnsSdRegistry, NacosRegistry, RedisRegistry, keeping


async def main(kind: str, place: str, port: int, name: str) -> None:
    if kind == "redis":
        url, prefix = place.split(" ")
        registry = RedisRegistry(url, prefix=prefix, ttl=2.0)
    elif kind == "nacos":
        registry = NacosRegistry(place)
    else:
        registry = DnsSdRegistry(interfaces=["127.0.0.1"], ttl=2.0)
    card = {"name": name, "version": "1.0.0"}
    async with keeping(card, [A2ATransportsProperties("127.0.0.1", port, "/a2a")], registry) as keeper:
        keeper.announce()
        while keeper.statuses()[0].state != "registered":
            await trio.sleep(0.01)
        sys.stdout.write("registered\n")
        sys.stdout.flush()
        await trio.sleep_forever()


trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
