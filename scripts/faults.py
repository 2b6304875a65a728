"""Break a small run of the pipeline in every way we can think of, and count what holds: writes docs/reliability.md.

`make faults` takes about ten minutes on two idle cores. Each fault is met by a child process of this one, so that a
kill, a limit or a crash ends nothing else.
"""

import ctypes
import hashlib
import os
import random
import resource
import runpy
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.end_to_end.pipeline import ROOT, commands, params, yaml
from tests.inputs.cases import CASES, LATER
from tests.inputs.page import try_input

PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# What was broken, and what held

`make faults` ([scripts/faults.py](../scripts/faults.py)) writes this page: it breaks runs of the pipeline on a small
simulated screen, fault by fault. What does not hold is listed below the table.
"""
FOOT = """*Another result* after a flipped byte: a number changed, and the file has no checksum of its own. DVC's hash
covers all of these files but the resume state, which has one: `dvc repro` makes a changed output again, and takes a
changed input for another one. `prepare` prints the hash of a user's file, and metrics files hold that of the cells."""
PASSING = ("data/cache", "data/resume")  # of no result: frozen layers, the state of interrupted training
REFUSED = (2, os.EX_IOERR)  # exit codes of an input and of a machine that will not do
KILLS, ORPHANS = 2, 6  # of each stage; of DVC's process
# What is read by which stage, and how many of its bytes are flipped, one at a time.
FLIPPED = {
    "prepared cells": ("data/prepared/cells.h5ad", "baseline@lda", 60),
    "a user's file": ("data/raw/mine.h5ad", "prepare", 60),
    "checkpoint": ("models/base", "embed@0", 30),
    "trained weights": ("models/scgpt-0", "embed@0", 30),
    "predictions": ("data/predictions/baselines/lda", "evaluate_baselines", 50),
    "scores": ("data/scores/baselines", "compare", 50),
    "resume state": ("data/resume", "finetune@0", 20),
}
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # of unshare(2)


@dataclass(frozen=True)
class Ended:
    """How a child process ended: its exit code, minus the signal that killed it; what it printed; seconds; MiB."""

    code: int
    output: str
    seconds: float
    memory: float

    def in_one_line(self) -> bool:
        """Whether it ended well, or said in one line why not."""
        errors = [line for line in self.output.splitlines() if line.startswith("error: ")]
        return "Traceback" not in self.output and (self.code == 0 or (self.code in REFUSED and len(errors) == 1))

    def last(self) -> str:
        """Return the last line it printed."""
        return f"exit code {self.code}: " + (self.output.strip().splitlines() or ["nothing printed"])[-1][:200]


@dataclass
class Row:
    """A row of the table."""

    fault: str
    holds: str  # what counts as held
    tries: int = 0
    failures: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, held: bool, failure: str, kind: str = "") -> None:
        """Count a try."""
        self.tries += 1
        if kind:
            self.counts[kind] += 1
        if not held:
            self.failures.append(failure)


def child(work: Callable[[], Any], kill_after: float | None = None, file_limit: int | None = None) -> Ended:
    """Do something in a child process, killed after some seconds, its files limited to some bytes."""
    ours, theirs = os.pipe()
    start = time.monotonic()
    if (process := os.fork()) == 0:
        os.close(ours)
        _work(work, theirs, file_limit)
    with suppress(OSError):
        os.setpgid(process, process)  # the child does the same; whoever is first
    os.close(theirs)
    output = b""
    while True:
        left = None if kill_after is None else max(0.0, start + kill_after - time.monotonic())
        if not select.select([ours], [], [], left)[0]:
            with suppress(ProcessLookupError):  # it is just ending
                os.killpg(process, signal.SIGKILL)
            kill_after = None
        elif block := os.read(ours, 1 << 16):
            output += block
        else:
            break
    os.close(ours)
    _, status, usage = os.wait4(process, 0)
    code, seconds = os.waitstatus_to_exitcode(status), time.monotonic() - start
    return Ended(code, output.decode(errors="replace"), seconds, usage.ru_maxrss / 1024)


def _work(work: Callable[[], Any], output: int, file_limit: int | None) -> NoReturn:
    code = 0
    try:
        os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(output, "w", buffering=1)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
        work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


class Bench:
    """A finished run in a folder, and copies of it to break."""

    def __init__(self, folder: Path):
        self.reference, self.copy = folder / "reference", folder / "copy"
        self.reference.mkdir()
        with (self.reference / "params.yaml").open("w") as file:
            yaml.dump(params(), file)
        self.commands = commands(params())
        for command in self.commands.values():
            import_module(shlex.split(command)[2])  # once, not in every child
        import_module("reverse_perturbation.models.scgpt.pretrain")
        self.seconds = {name: self._first(name) for name in self.commands}
        self.results = contents(self.reference)

    def _first(self, name: str) -> float:
        ended = self.run(name, self.reference)
        assert ended.code == 0, ended.output
        return ended.seconds

    def run(self, name: str, folder: Path | None = None, **limits: Any) -> Ended:
        """Run a stage in a child process."""
        return child(lambda: self.stage(name, folder), **limits)

    def stage(self, name: str, folder: Path | None = None) -> None:
        """Run a stage in this process."""
        _, _, module, *arguments = shlex.split(self.commands[name])
        os.chdir(folder or self.copy)
        sys.argv = [module, *arguments]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__")

    def settle(self, **changes: Any) -> None:
        """Write other parameters into the copy."""
        with (self.copy / "params.yaml").open("w") as file:
            yaml.dump(params(**changes), file)

    def fresh(self) -> Path:
        """Copy the finished run anew."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.reference, self.copy)
        return self.copy

    def differing(self, *besides: Path) -> list[str]:
        """Return the files of the copy that differ from the finished run, those aside that were broken."""
        found, aside = contents(self.copy), {path.relative_to(self.copy).as_posix() for path in besides}
        return sorted(
            name for name in (found.keys() | self.results.keys()) - aside if found.get(name) != self.results.get(name)
        )


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every result in a folder; what a kill leaves half written has a name of its own."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.relative_to(folder).as_posix().startswith(PASSING)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def kills(bench: Bench, rng: random.Random, per_stage: int = KILLS) -> Iterator[Row]:
    """Kill every stage at random times, and repeat it."""
    row = Row("SIGKILL at a random time in each stage, then the stage again", "every result as of an unbroken run")
    bench.fresh()
    for name in bench.commands:
        for _ in range(per_stage):
            after = rng.uniform(0.05, 0.8) * bench.seconds[name]
            killed, again = bench.run(name, kill_after=after), bench.run(name)
            differing = bench.differing()
            row.add(
                again.code == 0 and not differing,
                f"{name}, killed after {after:.2f} s: {again.last() if again.code else ', '.join(differing[:3])}",
                "killed" if killed.code == -signal.SIGKILL else "ended before",
            )
            if differing:
                bench.fresh()
    yield row


def orphans(bench: Bench, rng: random.Random, tries: int = ORPHANS) -> Iterator[Row]:
    """Kill what started a long training, as DVC does with its mark in the environment."""
    row = Row("SIGKILL of DVC alone in the middle of training", "the stage ends within 5 s and can be repeated")

    def dvc() -> None:
        if os.fork() == 0:
            os.setpgid(0, 0)
            os.environ["DVC_STAGE"] = "finetune@0"
            bench.stage("finetune@0")  # holds the pipe of its output until it ends
        signal.pause()

    for _ in range(tries):
        bench.fresh()
        bench.settle(finetune={"schedule": {"epochs": 500, "patience": 500}})
        after = rng.uniform(1, 4)
        ended = child(dvc, kill_after=after)
        late = ended.seconds - after
        bench.settle()
        again, differing = bench.run("finetune@0"), bench.differing()
        said = f"ended {late:.1f} s later; {again.last()} {', '.join(differing[:3])}"
        row.add("Traceback" not in ended.output and late < 5 and again.code == 0 and not differing, said)
    yield row


def full_disks(bench: Bench) -> Iterator[Row]:
    """Limit the size of files to nothing and to half of the largest that a stage writes."""
    row = Row(
        "no room for a file (RLIMIT_FSIZE: 0 bytes, 4 KiB), in each stage",
        "one line, exit code 74, nothing half written",
    )
    for name in bench.commands:
        for limit in (0, 4096):
            bench.fresh()
            ended = bench.run(name, file_limit=limit)
            differing = bench.differing()
            left = [path.name for path in bench.copy.rglob(".*-*")]
            held = ended.in_one_line() and not differing and not left
            fits = "room enough" if ended.code == 0 else "refused"
            row.add(held, f"{name}, {limit} bytes: {ended.last()} {', '.join([*differing, *left][:3])}", fits)
    yield row


def flips(bench: Bench, rng: random.Random, share: float = 1.0) -> Iterator[Row]:
    """Flip single bytes of what stages read."""
    for kind, (place, stage, tries) in FLIPPED.items():
        row = Row(f"a flipped byte: {kind}", "refused in one line, or a result")
        for _ in range(max(1, int(tries * share))):
            bench.fresh()
            _provide(bench, kind)
            if not (files := _readable(bench.copy / place)):  # training was killed before it had saved anything
                continue
            file = rng.choice(files)
            at = _flip(file, rng)
            ended = bench.run(stage)
            expected = [] if kind == "a user's file" else bench.differing(file)
            outcome = "refused" if ended.code else "another result" if expected else "the same result"
            row.add(ended.in_one_line(), f"{file.relative_to(bench.copy)}, byte {at}: {ended.last()}", outcome)
            if kind == "resume state" and expected:
                row.failures.append(f"{file.relative_to(bench.copy)}, byte {at}: {', '.join(expected[:3])}")
        yield row


def _readable(place: Path) -> list[Path]:
    """Return the files that a stage reads: not those that say who holds a lock, nor what is half written."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [
        path
        for path in found
        if path.is_file() and path.stat().st_size and path.name not in ("lock", "holder.txt") and "/." not in str(path)
    ]


def _flip(file: Path, rng: random.Random) -> int:
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    content[at] ^= rng.randrange(1, 256)
    file.write_bytes(content)
    return at


def _provide(bench: Bench, kind: str) -> None:
    """Put into the copy what a finished run does not have."""
    if kind == "resume state":
        for _ in range(9):
            if _readable(bench.copy / "data/resume"):
                return
            bench.run("finetune@0", kill_after=0.7 * bench.seconds["finetune@0"])
    elif kind == "a user's file":
        path = bench.copy / "data/raw/mine.h5ad"
        path.parent.mkdir()
        shutil.copy(bench.copy / "data/prepared/cells.h5ad", path)
        bench.settle(data={"source": "h5ad", "path": "data/raw/mine.h5ad"})


def inputs() -> Iterator[Row]:
    """Read the files and labels of tests/inputs."""
    for group, cases in CASES.items():
        row = Row(f"inputs: {group.lower()}", "read or refused in one line ([what is said](inputs.md))")
        for name, make in cases.items():
            with tempfile.TemporaryDirectory() as folder:

                def work(
                    folder: str = folder, make: Any = make, name: str = name, later: bool = group == LATER
                ) -> None:
                    outcome = try_input(Path(folder), make, name, later)
                    print("\n".join(outcome.lines))
                    raise SystemExit(outcome.code)

                ended = child(work)
                row.add(ended.in_one_line(), f"{name}: {ended.last()}", "refused" if ended.code else "read")
        yield row


def without_network(bench: Bench) -> Iterator[Row]:
    """Run the pipeline where no address can be reached."""
    row = Row("the whole pipeline without a network (unshare)", "every result as with one")
    libc = ctypes.CDLL(None, use_errno=True)

    def cut() -> None:
        raise SystemExit(int(libc.unshare(NEW_NETWORK | (NEW_USER if os.getuid() else 0)) != 0))

    if child(cut).code:
        row.counts["not allowed on this machine"] += 1
        yield row
        return

    def work() -> None:
        libc.unshare(NEW_NETWORK | (NEW_USER if os.getuid() else 0))
        for name in bench.commands:
            if code := bench.run(name).code:
                raise SystemExit(code)

    shutil.rmtree(bench.copy)
    bench.copy.mkdir()
    shutil.copy(bench.reference / "params.yaml", bench.copy)
    ended = child(work)
    row.add(ended.code == 0 and not bench.differing(), f"{ended.last()} {', '.join(bench.differing()[:3])}")
    yield row


def memory(bench: Bench) -> Iterator[Row]:
    """Train for more epochs and evaluate more seeds."""
    row = Row("memory: 2 and 12 epochs, 1 and 2 seeds", "the peak grows by less than 10 %")
    bench.fresh()
    for stage, changes in {
        "finetune@0": ({"schedule": {"epochs": 2}}, {"schedule": {"epochs": 12}}),
        "evaluate": ([0], [0, 1]),
        "combine": ([0], [0, 1]),
    }.items():
        peaks = []
        for value in changes:
            bench.settle(**{"finetune" if stage == "finetune@0" else "seeds": value})
            peaks.append(bench.run(stage).memory)
        few, many = peaks
        row.add(many < 1.1 * few, f"{stage}: {few:.0f} and {many:.0f} MiB", f"{stage} {few:.0f} and {many:.0f} MiB")
    yield row


def page(rows: list[Row], minutes: float) -> str:
    """Lay the counts out, every failure below them."""
    lines = [HEAD, "| fault | tries | held | what holds means | outcomes |", "|---|---:|---:|---|---|"]
    for row in rows:
        outcomes = ", ".join(kind if " and " in kind else f"{kind} {n}" for kind, n in row.counts.items()) or "-"
        lines.append(f"| {row.fault} | {row.tries} | {row.tries - len(row.failures)} | {row.holds} | {outcomes} |")
    tries, failed = sum(row.tries for row in rows), sum(len(row.failures) for row in rows)
    lines += ["", f"{tries} faults, {tries - failed} held, {failed} did not; {minutes:.0f} minutes.", ""]
    lines.append(FOOT)
    if failed:
        lines += ["", "## What did not hold", ""]
        lines += [f"- {row.fault}: `{failure.replace('`', chr(39))}`" for row in rows for failure in row.failures]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Break everything and write the page; return 1 if anything did not hold."""
    start, rng, rows = time.monotonic(), random.Random(0), list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for part in (
            kills(bench, rng),
            orphans(bench, rng),
            full_disks(bench),
            flips(bench, rng),
            inputs(),
            without_network(bench),
            memory(bench),
        ):
            for row in part:
                rows.append(row)
                PAGE.write_text(page(rows, (time.monotonic() - start) / 60), encoding="utf-8")
                print(f"{row.fault}: {row.tries - len(row.failures)} of {row.tries}", flush=True)
                print("".join(f"  {failure}\n" for failure in row.failures), end="", flush=True)
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
