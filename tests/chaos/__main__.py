"""The battery as a command: `python -m tests.chaos`, which `make chaos` calls."""

import argparse
import re
import signal
import sys
from itertools import islice
from pathlib import Path

from tests.chaos.battery import do_trial, measure_undisturbed, planned, read_results, remaining, table
from tests.chaos.bench import set_up_bench

# What CI does each time.
SHORT = (
    ("killed at every point", "sqlite"),
    ("killed at random", "sqlite"),
    ("shrinking folder", "sqlite"),
    ("two runs at once", "sqlite"),
    ("killed at transaction", "postgresql"),
    ("killed at issued", "postgresql"),
    ("database restarted", "postgresql"),
)


def main() -> int:
    """Do trials until there are as many results as wanted; return 1 where something was wrong in any."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("folder", type=Path, help="where pictures, trials and results are kept")
    parser.add_argument("--trials", type=int, default=0, help="go on until there are results of so many")
    parser.add_argument("--seed", type=int, default=14, help="of the order and of all that chance decides")
    parser.add_argument("--short", action="store_true", help="one trial of each that CI does, from new")
    parser.add_argument("--only", default="", help="only kinds whose name has this in it (a pattern)")
    given = parser.parse_args()
    # Ended so, its servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kept = given.folder.resolve() / "results.jsonl"
    results = read_results(kept)
    plan = iter(SHORT) if given.short else planned(given.seed)
    todo = remaining((each for each in plan if re.search(given.only, each[0])), results)
    done = sum(bool(re.search(given.only, each.kind)) for each in results)
    missing = (len(SHORT) if given.short else given.trials) - done
    if missing > 0:
        with set_up_bench(given.folder.resolve()) as bench:
            measure_undisturbed(bench)
            for kind, database in islice(todo, missing):
                result = do_trial(bench, len(results) + 1, kind, database, given.seed)
                results.append(result)
                with kept.open("a", encoding="utf-8") as file:
                    file.write(result.line() + "\n")
                print(result.sentence(), flush=True)
    print(f"\n{table(results)}")
    return int(any(each.problems for each in results))


if __name__ == "__main__":
    sys.exit(main())
