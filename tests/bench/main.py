# SPDX-License-Identifier: Apache-2.0
"""Runs the benches and prints what they found. Started by tests/bench/run, in a mount namespace of its own."""
import argparse
import importlib
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

from measure import HEAD, Env  # noqa: E402

BENCHES = ("release_claim", "many_mounts", "at_once", "churn", "idle", "attach_detach", "scan", "journal", "lun")


def run(name, options):
    """The rows of one bench, or None when it is broken."""
    env = Env(options.bare, options.full)
    started = time.monotonic()
    rows, problem = None, None
    try:
        rows = importlib.import_module(f"bench_{name}").run(env)
    except Exception:  # pylint: disable=broad-except
        problem = "\n" + traceback.format_exc()
    finally:  # an interrupt, too, leaves nothing
        problem = "; ".join(filter(None, (problem, env.close())))
    print(f"\n== {name} ({time.monotonic() - started:.0f} s)")
    for line in [HEAD, *(rows or [])] + [f"    {note}" for note in env.notes]:
        print(line)
    if problem:
        print(f"BROKEN: {problem}")
    sys.stdout.flush()
    return None if problem else rows


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="Ratios to baselines of the same run.")
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"default: all of {' '.join(BENCHES)}")
    parser.add_argument("--full", action="store_true", help="more samples")
    parser.add_argument("--bare", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.benches) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {' '.join(sorted(unknown))}")
    results = {name: run(name, options) for name in options.benches or BENCHES}
    print("\n== result")
    for name, rows in results.items():
        for row in rows or ():
            if row.verdict:
                print(f"{name + ': ' + row.what:66} {row.short:>10}  {row.verdict}")
        if rows is None:
            print(f"{name}: BROKEN")
    failed = sum(1 for rows in results.values() if rows is None)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
