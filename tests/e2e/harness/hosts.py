"""Hosts of their own on a switch: network namespaces with one address each.

The tests run in a namespace of their own already (`.ci/test hosts` makes it with `unshare`), so
that the machine's network isn't touched and the kernel takes everything away when they end."""

import contextlib
import os
import subprocess

SUBNET = "10.77.0"
MARK = "ORBWEB_OWN_NETWORK"


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Host:
    """One host: `prefix` starts a command on it."""

    def __init__(self, number):
        self.name = f"host{number}"
        self.port = f"port{number}"
        self.address = f"{SUBNET}.{number}"
        self.prefix = ["ip", "netns", "exec", self.name]
        run("ip", "netns", "add", self.name)
        run(
            "ip",
            "link",
            "add",
            self.port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.name,
        )
        run("ip", "link", "set", self.port, "master", "switch", "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")

    def unplug(self):
        """The cable is out: nothing comes or goes."""
        run("ip", "link", "set", self.port, "down")

    def plug(self):
        run("ip", "link", "set", self.port, "up")

    def cut_peers(self, *others, deaf=True, mute=True):
        """Drops UDP from (`deaf`) and to (`mute`) other hosts, all if none is named; TCP goes on."""
        run(*self.prefix, "nft", "add table inet cut")
        ways = [("input", "saddr")] * deaf + [("output", "daddr")] * mute
        for chain, side in ways:
            hook = f"{{ type filter hook {chain} priority 0 ; }}"
            run(*self.prefix, "nft", f"add chain inet cut {chain} {hook}")
            for address in [other.address for other in others] or [f"{SUBNET}.0/24"]:
                run(
                    *self.prefix,
                    "nft",
                    f"add rule inet cut {chain} ip {side} {address} meta l4proto udp drop",
                )

    def block_tcp(self, *ports):
        """Drops TCP to and from these ports, wherever they are; UDP goes on."""
        listed = ", ".join(map(str, ports))
        run(*self.prefix, "nft", "add table inet block")
        hook = "{ type filter hook input priority 0 ; }"
        run(*self.prefix, "nft", f"add chain inet block input {hook}")
        for side in ("dport", "sport"):
            run(*self.prefix, "nft", f"add rule inet block input tcp {side} {{ {listed} }} drop")

    def mend_peers(self):
        run(*self.prefix, "nft", "delete table inet cut")

    def remove(self):
        run("ip", "link", "delete", self.port)
        run("ip", "netns", "delete", self.name)


@contextlib.contextmanager
def hosts(number):
    """`number` hosts on one switch that this process is on, too."""
    assert os.environ.get(MARK) == "1", "run these by `.ci/test hosts`, as root"
    run("ip", "link", "add", "switch", "type", "bridge")
    try:
        run("ip", "address", "add", f"{SUBNET}.254/24", "dev", "switch")
        run("ip", "link", "set", "switch", "up")
        with contextlib.ExitStack() as stack:
            machines = []
            for n in range(1, number + 1):
                machines.append(Host(n))
                stack.callback(machines[-1].remove)
            yield machines
    finally:
        run("ip", "link", "delete", "switch")
