"""Order of 100M sequences over 12 sources against megatron-core's build_blending_indices, in the same run.

    .venv/bin/python benchmarks/order.py          # needs megatron-core (extra `verify`)

The peer decides which source comes when; ours is timed on that job alone (`interleave`), and then on the whole order,
which also shuffles every source without repeats. Both are timed three times, in turn; the best of each counts.
"""

import json
import subprocess
import sys

SEQUENCES = 100_000_000
SOURCES = 12

OURS = """
import time
import numpy as np
from curricula.order import interleave, order
from mixer.types import Draw
counts = [int(c) for c in np.array(WEIGHTS) * {n}]
list(order([Draw("a", 9, 0, 9), Draw("b", 9, 0, 3)], seed=1))
began = time.perf_counter()
for piece in interleave(counts): pass
blend = time.perf_counter() - began
began = time.perf_counter()
for piece in order([Draw(str(i), max(1, c), 0, c) for i, c in enumerate(counts)], seed=1): pass
whole = time.perf_counter() - began
"""
PEER = """
import numpy as np, time
from megatron.core.datasets import helpers_cpp
dataset, sample = np.zeros({n}, np.int16), np.zeros({n}, np.int64)
began = time.perf_counter()
helpers_cpp.build_blending_indices(dataset, sample, np.array(WEIGHTS), {k}, {n}, False)
blend = whole = time.perf_counter() - began
"""
TAIL = """
import json, resource
print(json.dumps([blend, whole, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""


def measure(code: str, python: str) -> list[float]:
    import numpy as np

    weights = np.random.default_rng(0).dirichlet(np.ones(SOURCES)).tolist()
    code = f"WEIGHTS = {weights}\n" + code.format(n=SEQUENCES, k=SOURCES) + TAIL
    out = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    peer_python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    ours, peer = [], []
    for _ in range(3):
        ours.append(measure(OURS, sys.executable))
        peer.append(measure(PEER, peer_python))
    blend, whole, theirs = min(o[0] for o in ours), min(o[1] for o in ours), min(p[0] for p in peer)
    print(f"which source, {SEQUENCES:,} x {SOURCES}: ours {blend:.2f} s, megatron-core {theirs:.2f} s")
    print(f"ratio: {theirs / blend:.2f} (at least 1.0)")
    print(f"whole order, shuffled without repeats: {whole:.2f} s, {SEQUENCES / whole / 1e6:.1f}M sequences/s")
    mine, other = max(o[2] for o in ours), max(p[2] for p in peer)
    print(f"peak memory: ours {mine:.2f} GiB (under 2), megatron-core {other:.2f} GiB")


if __name__ == "__main__":
    main()
