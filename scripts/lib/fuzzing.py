"""Cases of fuzzing by the million, in processes of their own: what dies or hangs is found too, and made smaller.

What was refused and why is counted: refusals that were not seen before put their case among those to mutate next.
"""

import json
import mmap
import os
import random
import re
import struct
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lib.fuzz_case import Target, begin_limits, memory_folder, outcome, sandbox, watch_files

BUSY_SECONDS = 10.0  # of processor time in one case: it is in C code, which no signal ends
SILENT_SECONDS = 120.0  # without a case ending, of a process that waits for something
SAID_SECONDS = 60.0  # from one line to the next of a long run
MAX_CAUSES, MAX_KEPT = 20_000, 400
_SHARED = struct.Struct("<QQ")  # cases begun, bytes of the current one
_MAX_CASE = 8 << 20


@dataclass(slots=True)
class Tally:
    """What became of a target's cases. `causes` counts refusals by their words, without names and numbers."""

    n_cases: int = 0
    n_accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Take over another's counts."""
        self.n_cases += other.n_cases
        self.n_accepted += other.n_accepted
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.causes.update(other.causes)


@dataclass(frozen=True, slots=True)
class Finding:
    """A case that failed; `key` is the same for what is most likely the same fault."""

    target: str
    key: str
    report: str
    case: bytes


class _Worker:
    """In a child: cases of one target until there are enough or time is over."""

    def __init__(
        self, target: Target, seed: int, number: int, folder: Path, shared: mmap.mmap, pipe: Connection
    ) -> None:
        self.target, self.folder, self.shared, self.pipe = target, folder, shared, pipe
        self.dice = random.Random(f"{seed} {target.name} {number}")
        self.kept = list(target.seeds)
        self.known: set[str] = set()

    def run(self, count: int, seconds: float) -> None:
        begin_limits()
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, 0)
        os.dup2(devnull, 1)
        self.target.warm_up(self.folder)
        watch_files(self.folder)
        done, until = 0, time.monotonic() + seconds
        while done < count and time.monotonic() < until:
            tally = Tally()
            began = time.monotonic()
            while done < count and time.monotonic() - began < 0.5:
                self._one(tally)
                done += 1
            tally.seconds = time.monotonic() - began
            self.pipe.send(("tally", tally))
        self.pipe.send(("done", None))

    def _one(self, tally: Tally) -> None:
        case = self.target.mutate(self.dice, self.kept)[:_MAX_CASE]
        self.shared[16 : 16 + len(case)] = case
        _SHARED.pack_into(self.shared, 0, _SHARED.unpack_from(self.shared)[0] + 1, len(case))
        began = time.process_time()
        cause, wrong = outcome(self.target, case, self.folder)
        tally.slowest = max(tally.slowest, time.process_time() - began)
        tally.n_cases += 1
        if wrong is not None:
            key, _, report = wrong.partition("\n")
            self.pipe.send(("finding", Finding(self.target.name, key, report, case)))
        tally.n_accepted += cause.startswith("taken")
        if len(tally.causes) < MAX_CAUSES:
            tally.causes[cause] += 1
        if cause not in self.known and len(self.known) < MAX_CAUSES:
            self.known.add(cause)
            if len(self.kept) < MAX_KEPT:
                self.kept.append(case)
            else:
                self.kept[self.dice.randrange(len(self.target.seeds), MAX_KEPT)] = case


class Run:
    """All cases of some targets, each in a few processes at a time; findings once for each key."""

    def __init__(self, findings: Path, *, seed: int, n_workers: int) -> None:
        self.folder, self.seed, self.n_workers = findings, seed, n_workers
        self.tallies: dict[str, Tally] = {}
        self.found: dict[tuple[str, str], Finding] = {}
        self.n_failed = 0
        self.context = get_context("fork")

    def fuzz(self, target: Target, count: int, seconds: float) -> None:
        """Do `count` cases of a target, or as many as there is time for."""
        tally = self.tallies.setdefault(target.name, Tally())
        until = time.monotonic() + seconds
        target.seeds  # noqa: B018  made once, before the processes part
        shares = [count // self.n_workers + (i < count % self.n_workers) for i in range(self.n_workers)]
        jobs = [self._start(target, number, share, seconds) for number, share in enumerate(shares) if share]
        try:
            self._watch(target, jobs, tally, count, until)
        finally:
            for job in jobs:
                job.process.kill()
                job.process.join()
                job.close()

    def _watch(self, target: Target, jobs: "list[_Job]", tally: Tally, count: int, until: float) -> None:
        """Take what processes say, until all are done; `jobs` are those that are not."""
        n_restarts, said_at = 0, time.monotonic()
        while jobs:
            if time.monotonic() - said_at > SAID_SECONDS:
                said_at = time.monotonic()
                print(f"  {target.name}: {tally.n_cases:,} of {count:,}", flush=True)
            ready = wait([job.pipe for job in jobs], timeout=1.0)
            for job in list(jobs):
                is_over = False
                if job.pipe in ready:
                    try:
                        while job.pipe.poll():
                            kind, said = job.pipe.recv()
                            job.silent = 0.0
                            if kind == "tally":
                                tally.add(said)
                                job.left -= said.n_cases
                            elif kind == "finding":
                                self._take(said)
                            else:
                                is_over = True
                                break
                    except (EOFError, OSError):
                        job.process.join(5)
                        code = job.process.exitcode
                        self._take(Finding(target.name, f"the process died ({code})", job.said(), job.case()))
                        is_over = True
                elif (n_begun := job.n_begun()) == job.n_seen:
                    job.silent += 1.0
                    busy = job.processor_seconds() - job.busy_before
                    if busy > BUSY_SECONDS or job.silent > SILENT_SECONDS:
                        job.process.kill()
                        job.process.join()
                        key = "it computes for ever" if busy > BUSY_SECONDS else "it waits for ever"
                        self._take(Finding(target.name, key, "", job.case()))
                        is_over = True
                else:
                    job.n_seen, job.silent, job.busy_before = n_begun, 0.0, job.processor_seconds()
                if is_over:
                    job.process.join(10)
                    jobs.remove(job)
                    job.close()
                    if job.left > 0 and time.monotonic() < until and n_restarts < 50:
                        n_restarts += 1
                        jobs.append(self._start(target, 1000 + n_restarts, job.left, until - time.monotonic()))

    def _start(self, target: Target, number: int, count: int, seconds: float) -> "_Job":
        shared = mmap.mmap(-1, 16 + _MAX_CASE)
        ours, theirs = self.context.Pipe(duplex=False)
        folder = Path(tempfile.mkdtemp(prefix="owm-fuzz-", dir=memory_folder()))

        def work() -> None:
            ours.close()
            sandbox(folder)
            stderr = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT)
            os.dup2(stderr, 2)
            _Worker(target, self.seed, number, folder, shared, theirs).run(count, seconds)

        process = self.context.Process(target=work, daemon=True)
        process.start()
        theirs.close()
        return _Job(process, ours, shared, folder, count)

    def _take(self, finding: Finding) -> None:
        self.n_failed += 1
        if (finding.target, finding.key) not in self.found and len(self.found) < 500:
            self.found[finding.target, finding.key] = finding
            print(f"  WRONG {finding.target}: {finding.key}", flush=True)
            self.save(finding, finding.case)

    def save(self, finding: Finding, case: bytes) -> Path:
        """Keep a case that failed, and what is known of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9.]+", "-", f"{finding.target} {finding.key}")[:100].strip("-")
        path = self.folder / f"{stem}.case"
        path.write_bytes(case)
        about = {"target": finding.target, "key": finding.key, "report": finding.report}
        path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        return path


class _Job:
    """A process at work."""

    def __init__(self, process: Any, pipe: Connection, shared: mmap.mmap, folder: Path, left: int) -> None:
        self.process, self.pipe, self.shared, self.folder, self.left = process, pipe, shared, folder, left
        self.n_seen, self.silent, self.busy_before = 0, 0.0, 0.0

    def processor_seconds(self) -> float:
        """Return the processor time of the process so far."""
        import psutil

        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def n_begun(self) -> int:
        return int(_SHARED.unpack_from(self.shared)[0])

    def case(self) -> bytes:
        return bytes(self.shared[16 : 16 + _SHARED.unpack_from(self.shared)[1]])

    def said(self) -> str:
        try:
            return (self.folder / "stderr").read_text("utf-8", "replace")[-3000:]
        except OSError:
            return ""

    def close(self) -> None:
        import shutil

        self.pipe.close()
        self.shared.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def alone(target: Target, case: bytes, *, seconds: float = SILENT_SECONDS) -> tuple[str, str | None]:
    """Drive one case in a process of its own; return cause and what is wrong, as `outcome` does."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    with tempfile.TemporaryDirectory(prefix="owm-fuzz-", dir=memory_folder()) as made:
        folder = Path(made)

        def work() -> None:
            sandbox(folder)
            begin_limits()
            target.warm_up(folder)
            watch_files(folder)
            theirs.send(outcome(target, case, folder))

        process = context.Process(target=work, daemon=True)
        process.start()
        theirs.close()
        said: tuple[str, str | None]
        try:
            said = ours.recv() if ours.poll(seconds) else ("", "it waits for ever\n")
        except EOFError:
            process.join()
            said = ("", f"the process died ({process.exitcode})\n")
        process.kill()
        process.join()
        ours.close()
    return said


def minimised(target: Target, case: bytes, key: str, *, tries: int = 200) -> bytes:
    """Return a smaller case that fails in the same way."""

    def still(smaller: bytes) -> bool:
        _, wrong = alone(target, smaller, seconds=10)
        return wrong is not None and wrong.partition("\n")[0] == key

    step = max(1, len(case) // 2)
    while step and tries > 0:
        at = 0
        while at < len(case) and tries > 0:
            tries -= 1
            smaller = case[:at] + case[at + step :]
            if still(smaller):
                case = smaller
            else:
                at += step
        step //= 2
    return case


def saved(path: Path) -> tuple[str, str, bytes]:
    """Read a finding that was saved: its target, its key and the case."""
    about = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return about["target"], about["key"], path.with_suffix(".case").read_bytes()
