"""What the measurements share: arguments, percentiles, and how figures are told."""

import argparse
import json
import math
import os
import pathlib
import platform


def parser(doc, command=""):
    """The arguments that every measurement has."""
    words = argparse.ArgumentParser(prog=f"tests/measure {command}".strip(), description=doc)
    words.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    return words


def add_numbers(words, numbers):
    """Adds options that are whole numbers: name → default and meaning."""
    for name, (default, text) in numbers.items():
        words.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{text} [{default}]")
    return words


def machine():
    """Where the figures come from, and how busy it was before."""
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def percentiles(values, digits=3, **shares):
    """Nearest-rank percentiles: `p50=0.5` is the median."""
    values = sorted(values)
    return {
        name: round(values[max(0, math.ceil(share * len(values)) - 1)], digits)
        for name, share in shares.items()
    }


def table(rows):
    """Two columns as text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def tell(found, rows, file=None):
    """Prints a table, and writes the figures to a file if there is one."""
    if file:
        file.write_text(json.dumps(found, indent=2) + "\n")
    where = found["machine"]
    print(table([*rows, ("machine", f"{where['cores']} cores, load {where['load']} before")]))


def millis(micros):
    """Latencies in words."""
    return (
        f"p50 {micros['p50'] / 1000:.2f} ms, p99 {micros['p99'] / 1000:.2f} ms, "
        f"max {micros['max'] / 1000:.1f} ms"
    )
