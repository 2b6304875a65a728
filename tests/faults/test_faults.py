"""A few faults of each kind; `make faults` tries hundreds."""

import os
import random
import signal
import sys
import time

import pytest

from scripts import faults
from scripts.faults import Bench, Row, child


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A finished run, made in child processes: nothing of it stays in this one."""
    before = dict(sys.modules)
    yield Bench(tmp_path_factory.mktemp("bench"))
    for name in sys.modules.keys() - before.keys():
        if name.startswith("reverse_perturbation.stages"):
            del sys.modules[name]


def held(rows):
    rows = list(rows)
    assert not [failure for row in rows for failure in row.failures]
    assert sum(row.tries for row in rows)
    return rows


@pytest.mark.slow
def test_a_killed_stage_can_be_repeated(bench):
    held(faults.kills(bench, random.Random(1), per_stage=1))


@pytest.mark.slow
def test_training_ends_with_dvc(bench):
    held(faults.orphans(bench, random.Random(1), tries=1))


@pytest.mark.slow
def test_a_flipped_byte_ends_in_no_traceback(bench):
    held(faults.flips(bench, random.Random(1), share=0.05))


@pytest.mark.slow
def test_no_stage_needs_a_network_and_memory_does_not_grow(bench):
    held([*faults.without_network(bench), *faults.memory(bench)])


def test_a_child_tells_how_it_ended():
    assert child(lambda: print("done")).output == "done\n"
    killed = child(lambda: time.sleep(60), kill_after=0.2)
    assert killed.code == -signal.SIGKILL
    assert 0.2 <= killed.seconds < 10

    def too_large():
        with open(os.devnull, "w"), open(f"/tmp/{os.getpid()}", "w") as file:
            os.unlink(file.name)
            file.write("x" * 1000)

    limited = child(too_large, file_limit=100)
    assert limited.code == 1
    assert "File too large" in limited.output
    assert not limited.in_one_line()
    refused = child(lambda: sys.exit(2))
    assert not refused.in_one_line(), "it does not say why"


def test_the_page_counts_what_held_and_lists_what_did_not():
    row = Row("a fault", "one line")
    row.add(True, "", "refused")
    row.add(False, "a file: exit code 1", "refused")
    text = faults.page([row], 2.4)
    assert "| a fault | 2 | 1 | one line | refused 2 |" in text.splitlines()
    assert "2 faults, 1 held, 1 did not; 2 minutes." in text
    assert text.endswith("## What did not hold\n\n- a fault: `a file: exit code 1`\n")
