"""A reload: the settings are read again and the code loaded anew, on a system that runs."""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from actors.errors import RaywireError, SettingsError, UnavailableError
from actors.settings.file import Loaded
from serve.auth.access import with_keys
from serve.authorise.load import names_functions
from serve.system.change import Change, compare
from serve.system.code_check import check_code
from serve.system.control import Ask
from serve.system.local import READY_WITHIN_S, LocalSystem, Tell

log = logging.getLogger(__name__)

_PARTITIONS: Final = (
    "queue.partitions: is fixed for the life of the data: set it back, or start with another "
    "--data directory"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload did.

    Attributes:
        changed: Settings that are new, by dotted name.
        pipeline: The pipeline began anew.
        edges: The edges were replaced.
        code_changed: A module of the user's code differs from the one before.
        stood_s: How long no message was applied.
        warnings: What is unwise in the new settings, a line each.
    """

    changed: tuple[str, ...]
    pipeline: bool
    edges: bool
    code_changed: bool
    stood_s: float
    warnings: tuple[str, ...]


def answer(
    ask: Ask,
    system: LocalSystem,
    reread: Callable[[], Loaded],
    stop: threading.Event,
    tell: Tell,
) -> str:
    """Reload, tell the asker, and return a line for whoever watches the system."""

    def tell_both(text: str) -> None:
        tell(text)
        ask.tell(text)

    try:
        outcome = reload(system, reread, stop, tell_both)
    except RaywireError as error:
        ask.fail(error)
        return f"Not reloaded: {str(error).splitlines()[0]}"
    except Exception as error:
        # What runs goes on, in whatever state: to end it for a reload would help nobody.
        log.exception("reload failed")
        ask.fail(UnavailableError(f"the reload failed: {type(error).__name__}: {error}"))
        return "Not reloaded: see the log"
    facts: dict[str, Any] = asdict(outcome)
    ask.done(facts)
    return describe(facts)


def describe(facts: dict[str, Any]) -> str:
    """Return what a reload did, as a line for people."""
    changed = ", ".join(facts["changed"])
    if changed:
        what = f"Reloaded: {changed}"
    else:
        what = "Code reloaded" if facts["code_changed"] else "Nothing changed, code reloaded"
    if facts["edges"]:
        what += "; edges replaced"
    if facts["pipeline"]:
        return f"{what}; the pipeline stood for {facts['stood_s']:.1f} s"
    return f"{what}; the pipeline went on"


def reload(
    system: LocalSystem, reread: Callable[[], Loaded], stop: threading.Event, tell: Tell
) -> Outcome:
    """Apply what has changed in settings and code; return when all of it holds.

    Nothing is touched before the settings are read and the transforms loaded, and where this
    machine can set up, in a fresh process.

    The pipeline, where it must begin anew, is drained first: what is under way is committed by the
    old code, and what is read afterwards goes through the new. So each channel has all that the
    old code made before all that the new makes, each message once. Meanwhile edges accept and the
    queue grows. Where draining fails (a transform that takes longer than half a minute), the old
    actors are ended; the commit sees to it that a batch still takes effect once.

    Edges begin anew where a setting of theirs, or the code that they may run, has changed. The
    pipeline comes first, then the edges. Edges are replaced one after another; publishes under
    way get their results, and clients are sent away with 3001 and come back.

    Args:
        system: What runs; called by the thread that looks after it.
        reread: Reads the settings again.
        stop: When set, the reload gives up; the system is to be stopped then.
        tell: Is told each step.

    Raises:
        SettingsError: The new settings or the code cannot be used.
        UnavailableError: They did not come up in time, or `stop` was set. In both cases the old
            settings hold, and what was replaced runs on them again, or the text says that it
            does not.
    """
    old = system.settings
    tell("Reading the settings")
    loaded = reread()
    new = loaded.settings
    change = compare(old, new)
    _refuse_restart(change, shipped=old.ray.address != "local")
    with_keys(new.auth)
    system.check_room(new)
    tell("Loading the transforms")
    code = check_code(new, stop, within_s=READY_WITHIN_S)
    code_changed = any(system.code_digests.get(path) != code[path] for path in code)
    changed = code_changed or not change.names
    with_edges = change.edges or (changed and names_functions(new.authorise))
    with_pipeline = change.pipeline or changed or not system.pipeline_runs
    stood_s = 0.0
    try:
        if with_pipeline:
            stood_s = system.replace_pipeline(new, tell, stop)
        if with_edges:
            system.replace_edges(new, tell, stop)
    except RaywireError as error:
        if stop.is_set():
            raise
        _go_back(system, error, tell, stop, pipeline=with_pipeline)
    system.settings, system.code_digests = new, code
    return Outcome(
        changed=change.names,
        pipeline=with_pipeline,
        edges=with_edges,
        code_changed=code_changed,
        stood_s=round(stood_s, 3),
        warnings=loaded.warnings,
    )


def _refuse_restart(change: Change, *, shipped: bool) -> None:
    """Refuse what cannot change while the system runs.

    Raises:
        SettingsError: There is some of it.
    """
    wrong = [
        _PARTITIONS
        if name == "queue.partitions"
        else f"{name}: needs a restart: set it back, or stop `raywire up` (Ctrl-C) and start it "
        "again; nothing is lost"
        for name in change.restart
    ]
    if shipped and (not change.names or "code" in change.names):
        wrong.append(
            "code: is shipped to the cluster when `raywire up` starts: stop it (Ctrl-C) and start "
            "it again; nothing is lost"
        )
    if wrong:
        raise SettingsError("\n".join(wrong))


def _go_back(
    system: LocalSystem, why: RaywireError, tell: Tell, stop: threading.Event, *, pipeline: bool
) -> None:
    """Start what was replaced on the old settings, and raise why.

    Raises:
        SettingsError: Why, where that is its kind.
        UnavailableError: Why, or that the old settings do not come up either.
    """
    tell(f"That failed: going back to the old settings ({str(why).splitlines()[0]})")
    try:
        if pipeline:
            system.replace_pipeline(system.settings, tell, stop)
        if system.edges_disturbed:
            system.replace_edges(system.settings, tell, stop)
    except RaywireError as error:
        raise UnavailableError(
            f"{why}\nthe old settings do not come up either: {error}\n"
            "what is published waits in the queue: mend this, and `raywire reload` again"
        ) from why
    raise why
