"""``python -m tests.crash --client 100 --server 20``: the crash suite, as often as is asked for."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conftest import contract_maker
from tests.crash.suite import disturbed, make_work, undisturbed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--client", type=int, default=100, help="clients to kill")
    parser.add_argument("--server", type=int, default=20, help="servers to kill")
    parser.add_argument("--rows", type=int, default=30_000, help="rows of a delivery")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dopa-crash-") as name:
        folder = Path(name)
        work = make_work(contract_maker(folder), folder, asked.rows)
        expected = undisturbed(folder / "a" / "state", work)
        tally = disturbed(folder / "b" / "state", work, expected, client=asked.client, server=asked.server, seed=asked.seed)
    print(f"seed {asked.seed}: {tally}")
    for difference in tally.differences:
        print(difference, file=sys.stderr)
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
