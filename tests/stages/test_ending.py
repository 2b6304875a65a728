"""A stage that is ended early says so in one line, leaves nothing half written, and goes on when it is repeated."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reverse_perturbation.errors import InputError, InUseError
from reverse_perturbation.stages.arguments import parser, run

ROOT = Path(__file__).parents[2]
# A stage that writes half of its output and waits, or trains on.
STAGE = """
import sys, time
from pathlib import Path
from reverse_perturbation.stages.arguments import parser, run
from reverse_perturbation.storage import write_atomically
def stage(args, params):
    with write_atomically("out/file") as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(float(sys.argv[2]))
run(stage, parser(None), ["--params", sys.argv[1]])
"""
# Stands for DVC: starts a command with DVC's mark, says its process and waits.
DVC = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], env=os.environ | {"DVC_STAGE": "finetune@0"}, stdout=sys.stderr)
print(child.pid, flush=True)
child.wait()
"""
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"}
ENVIRONMENT["PYTHONPATH"] = str(ROOT / "src")


def stage(seconds: float = 60) -> list[str]:
    return [sys.executable, "-c", STAGE, str(ROOT / "params.yaml"), str(seconds)]


def start(command: list[str], folder: Path, **options) -> subprocess.Popen:
    """Start a command as at a terminal: what a shell runs in the background, as these tests may be, ignores Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **heard | pipes | options)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal(tmp_path, number, code, said):
    with start(stage(), tmp_path) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr.read() == f"{said}; repeat the command to resume\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_control_c_while_a_stage_is_imported(tmp_path, seconds):
    with start([sys.executable, "-m", "reverse_perturbation.stages.finetune", "--help"], tmp_path) as process:
        time.sleep(seconds)
        assert process.poll() is None, "importing torch takes longer"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (130, -signal.SIGINT)
        assert process.stderr.read() == "interrupted; repeat the command to resume\n"


def running(pid: int) -> bool:
    path = Path("/proc") / str(pid) / "stat"
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def ended(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while running(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not running(pid)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@needs_proc
@pytest.mark.parametrize("above", [[], ["sh", "-c", '"$@"; true', "sh"]], ids=["DVC's child", "below a shell"])
def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path, above):
    with start([sys.executable, "-c", DVC, *above, *stage()], tmp_path) as dvc:
        assert dvc.stderr.readline() == "writing\n"
        pid = int(dvc.stdout.readline())
        time.sleep(2.5)
        assert running(pid), "as long as DVC runs"
        dvc.kill()
        assert dvc.stderr.readline() == "terminated; repeat the command to resume\n"
        assert ended(pid, 10)
    assert list((tmp_path / "out").iterdir()) == []


@needs_proc
@pytest.mark.parametrize("above", [["nohup"], ["setsid"]])
def test_a_stage_started_by_hand_outlives_its_shell(tmp_path, above):
    with start(["sh", "-c", '"$@" & echo $!; wait', "sh", *above, *stage(4)], tmp_path) as shell:
        pid = int(shell.stdout.readline())
        assert shell.stdout.readline() == "writing\n"
        shell.kill()
        assert shell.stderr.read().replace("nohup: ignoring input\n", "") == "", "read when the stage has ended"
        assert ended(pid, 10)
    assert (tmp_path / "out" / "file").read_text() == "half"


def small_files() -> None:
    """Stands for a full disk: a file may not grow."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_full_disk(tmp_path):
    command = [sys.executable, "-c", STAGE.replace('"half"', '"half" * 1000'), str(ROOT / "params.yaml"), "0"]
    with start(command, tmp_path, preexec_fn=small_files) as process:
        assert process.wait(20) == os.EX_IOERR
        said = process.stderr.read()
    assert said == "error: File too large; make room or correct the path, then repeat the command\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_that_cannot_be_made(tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    with start(stage(), tmp_path) as process:
        assert process.wait(20) == os.EX_IOERR
        assert process.stderr.read().startswith("error: out: File exists; make room or correct the path")


def closing_after_a_full_disk() -> RuntimeError:
    """As torch.save raises it."""
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    error.__context__ = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    return error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a.csv: wrong"), 2, "error: a.csv: wrong\n"),
        (InUseError("a: in use"), os.EX_TEMPFAIL, "error: a: in use\n"),
        (
            OSError(28, "No space left on device", "a.csv"),
            os.EX_IOERR,
            "error: a.csv: No space left on device; make room",
        ),
        (
            OSError("Can't write data (file write failed: time = Fri\n, filename = 'a')"),
            os.EX_IOERR,
            "error: file write failed; make",
        ),
        (closing_after_a_full_disk(), os.EX_IOERR, "error: file write failed; make room"),
        (MemoryError(), os.EX_IOERR, "error: out of memory; make room"),
        (RuntimeError("CUDA out of memory. Tried to\nallocate"), os.EX_IOERR, "error: out of memory; make room"),
    ],
)
def test_what_is_one_line(capsys, error, code, said):
    def stage(args, params):
        raise error

    with pytest.raises(SystemExit) as end:
        run(stage, parser(None), ["--params", str(ROOT / "params.yaml")])
    assert end.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1


def test_an_error_of_the_code_keeps_its_traceback():
    def stage(args, params):
        try:
            Path("nowhere/at/all").read_text()
        except OSError:
            raise KeyError("a bug") from None

    with pytest.raises(KeyError):
        run(stage, parser(None), ["--params", str(ROOT / "params.yaml")])
