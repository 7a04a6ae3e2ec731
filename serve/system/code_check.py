"""Try the user's code in a fresh process: one that runs has imported the modules as they were."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from actors.errors import SettingsError, UnavailableError
from actors.settings.tree import Settings, StageSettings
from actors.transform.load import check as check_transforms
from actors.transformer import Transformer
from serve.authorise.load import check as check_rules

_LOOK_EVERY_S: Final = 0.1
_STDERR_CHARS_MAX: Final = 500


def check_code(settings: Settings, stop: threading.Event, *, within_s: float) -> dict[str, str]:
    """Import the user's code anew, set up transforms where this machine can; return `digests`.

    Functions that decide what clients may do are imported, and not called. A stage that reserves
    GPUs or other resources, or runs on another machine, is not set up. What the code prints goes
    nowhere.

    Args:
        settings: Which transforms and functions, and where they are.
        stop: When set, the process is ended.
        within_s: How long it may take.

    Raises:
        SettingsError: Something cannot be loaded or set up; the text shows the user's line.
        UnavailableError: It takes too long, or `stop` was set.
    """
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:
        try:
            process = subprocess.Popen(  # noqa: S603 - this module, by this interpreter
                [sys.executable, "-m", "serve.system.code_check", str(writing)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        with process:
            stderr = _wait(process, pickle.dumps(settings), stop, within_s)
        blob = answers.read()
    if not blob:
        raise SettingsError(
            f"loading the code ended the process that tried it (exit code "
            f"{process.returncode}): {stderr[-_STDERR_CHARS_MAX:].strip() or 'it said nothing'}"
        )
    answer = json.loads(blob)
    if answer["wrong"]:
        raise SettingsError(answer["wrong"])
    found: dict[str, str] = answer["digests"]
    return found


def digests(code: Path) -> dict[str, str]:
    """Return path and digest of each file in `code` that this process has imported.

    Installed packages are left out, also where a virtual environment lies in `code`.
    """
    directory = code.resolve()
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found = {}
    for path in sorted(Path(file).resolve() for file in files if file):
        if path.is_relative_to(directory) and "site-packages" not in path.parts and path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _wait(
    process: "subprocess.Popen[bytes]", given: bytes, stop: threading.Event, within_s: float
) -> str:
    deadline = time.monotonic() + within_s
    to_send: bytes | None = given
    try:
        while True:
            try:
                _, stderr = process.communicate(to_send, timeout=_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                to_send = None
                if stop.is_set():
                    raise UnavailableError("the system is stopping") from None
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"loading the code takes longer than {within_s:.0f} s"
                    ) from None
            else:
                return stderr.decode(errors="replace")
    finally:
        process.kill()


def _can_set_up(settings: Settings, stage: StageSettings) -> bool:
    return settings.ray.address == "local" and not stage.num_gpus and not stage.resources


def _try(settings: Settings) -> str:
    """Return what is wrong, or nothing."""
    try:
        check_transforms(settings, settings.code)
        check_rules(settings, settings.code)
        for stage in settings.stages:
            if _can_set_up(settings, stage):
                Transformer(stage, str(settings.code)).close()
    except SettingsError as error:
        return str(error)
    return ""


def _main() -> None:
    settings: Settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    answer = {"wrong": _try(settings), "digests": digests(settings.code)}
    with open(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    _main()
