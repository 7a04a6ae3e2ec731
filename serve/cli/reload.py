"""`raywire reload`: new settings and new code for a system that runs."""

from pathlib import Path
from typing import Any

from actors.errors import UnavailableError
from serve.cli.options import DataOption, JsonOption, load_settings
from serve.cli.output import out, print_json, print_warning, wants_json
from serve.cli.progress import Progress
from serve.system.running import read_running


def command(data: DataOption = None, *, as_json: JsonOption = False) -> None:
    """Read the settings again and load the transforms anew, on the running system.

    Asks the `raywire up` of the data directory, which uses the file, environment and options that
    it was started with. Everything is checked first; on an error the old settings hold. Nothing is
    lost, and each channel keeps its order: all that the old code made, then all that the new makes.

    Example: `raywire reload`, after you changed raywire.yaml or a transform
    """
    # Here the settings say no more than where it runs.
    where = data.absolute() if data is not None else load_settings().settings.data
    running = read_running(where)
    if running is None or not running.control:
        raise UnavailableError(
            f"nothing runs on {where}: start it with `raywire up`, or say where with --data DIR"
        )
    progress = Progress()
    try:
        facts = _follow(Path(running.control), progress)
    finally:
        progress.end("")
    for warning in facts["warnings"]:
        print_warning(warning)
    if wants_json(asked=as_json):
        print_json({name: fact for name, fact in facts.items() if name != "event"})
    else:
        from serve.system.reload import describe

        out().print(describe(facts), markup=False, soft_wrap=True)


def _follow(path: Path, progress: Progress) -> dict[str, Any]:
    from serve.system.control import ask

    facts: dict[str, Any] = {}
    for facts in ask(path, {"ask": "reload"}):
        if facts["event"] == "progress":
            progress.tell(facts["text"])
    return facts
