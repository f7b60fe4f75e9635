"""The command line in a process of its own, forked from one that has imported already what takes seconds to import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

IMPORTED = [
    "cli.app",
    "training.pocket.build",
    "training.pocket.ablation",
    "torch._dynamo",
    "onnxscript",
    "numba",
]
"""The last three are otherwise imported by each command when it first needs them."""
LONGEST_S = 600
"""After which a command is given up."""


def run_forked(
    *arguments: str, kill: tuple[str, str] | None = None, graphs: Path | None = None
) -> CompletedProcess[str]:
    """Run `flaneur ARGUMENTS...`.

    Args:
        kill: A point of `tests.kill_points` and the name of the signal that ends the process there.
        graphs: Folder in which exported graphs are kept; see `graphs_kept_in`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("out", "err")]
        process = context.Process(target=_work, args=(arguments, kill, graphs, *paths))
        process.start()
        process.join(LONGEST_S)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"flaneur {' '.join(arguments)} takes more than {LONGEST_S} s")
        out, err = (path.read_text("utf-8") for path in paths)
    assert process.exitcode is not None
    return CompletedProcess(list(arguments), process.exitcode, out, err)


def _work(
    arguments: tuple[str, ...], kill: tuple[str, str] | None, graphs: Path | None, out: Path, err: Path
) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream.fileno())
    # Whatever runs in the background of a shell is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if kill is not None:
        from tests.kill_points import lay_kill

        lay_kill(*kill)
    if graphs is not None:
        import export.onnx
        from tests.exported_bundles import graphs_kept_in

        export.onnx.write_graph = graphs_kept_in(graphs)
    from cli.app import run

    sys.exit(run(list(arguments)))
