"""Runs schemathesis against the built binary: every check, every phase, over /openapi.json.

Limits are off, since they would answer 429 to nearly all of the cases. It fails if a case fails, if
fewer cases ran than were asked for, or if the binary logged a failure of its own.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from otpost_process import BINARY, Otpost  # noqa: E402 (found only on the path set above)


def main() -> int:
    options = arguments()
    seeds = options.seed or [secrets.randbelow(2**32) for _ in range(options.random_seeds)]
    for seed in seeds:
        if not passes(options, seed):
            print(f"failed with --seed {seed} --examples {options.examples}", file=sys.stderr)
            return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, action="append", help="a fixed seed; may be repeated")
    parser.add_argument("--random-seeds", type=int, default=1, help="seeds to draw without --seed")
    parser.add_argument("--examples", type=int, default=100, help="bound per operation and phase")
    parser.add_argument("--at-least", type=int, default=1, help="cases that must run per seed")
    parser.add_argument("--binary", type=Path, default=BINARY)
    return parser.parse_args()


def passes(options: argparse.Namespace, seed: int) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Otpost(Path(folder), options.binary) as otpost:
        report = Path(folder) / "report.json"
        status = subprocess.run(
            [
                Path(sys.executable).parent / "schemathesis",
                f"--config-file={HERE / 'schemathesis.toml'}",
                "run",
                f"{otpost.url}/openapi.json",
                f"--seed={seed}",
                f"--max-examples={options.examples}",
                "--report=json",
                f"--report-json-path={report}",
            ],
            # What it keeps for a next run would make two runs of one seed differ.
            cwd=folder,
            check=False,
        ).returncode
        trouble = otpost.trouble()
        cases = json.loads(report.read_text())["test_cases"]["generated"] if report.exists() else 0
    if trouble:
        print(trouble, file=sys.stderr)
    print(f"seed {seed}: {cases} cases in {time.monotonic() - started:.0f} s")
    return status == 0 and not trouble and cases >= options.at_least


if __name__ == "__main__":
    sys.exit(main())
