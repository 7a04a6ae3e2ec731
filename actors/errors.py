"""Every error of the pipeline, sorted by what the caller should do.

Errors cross processes pickled, so each passes its positional arguments on to `Exception`.
"""


class RaywireError(Exception):
    """Anything that Raywire raises on purpose."""


class SettingsError(RaywireError):
    """Do not start: the settings, or what they name, are wrong. The text names the remedy."""


class MessageError(RaywireError):
    """Do not retry: this message can never be accepted. The text says why."""


class UnavailableError(RaywireError):
    """Retry later. The call may have taken effect, so what is retried must bear repeating."""


class QueueFullError(UnavailableError):
    """Retry later: the queue is at its limit. Nothing of the refused part was accepted."""


class NumberGapError(RaywireError):
    """Begin the numbers anew: the queue does not know those before the call's first one.

    Nothing of the call was accepted, now or before.
    """


class GapError(RaywireError):
    """Read again from the checkpoint: what came before this batch is not applied.

    Nothing of the batch that raised it was applied to the partition in question.
    """


class SuspectError(UnavailableError):
    """Retry later, and in smaller parts if it happens again: the batch itself may be the cause.

    An actor on its way died, or cannot be reached. It may have taken effect.
    """


class TooLargeError(SuspectError):
    """Send less at once: transforms have made more of the batch than one commit can hold."""


class CrashError(RaywireError):
    """Try with less: the batch, alone, ended its transformer's process, or became too large there.

    Nothing of it was committed. Arguments: the stage's name, and what is known of the end.
    """

    @property
    def stage(self) -> str:
        """Return the name of the stage whose transformer it was."""
        return str(self.args[0])

    @property
    def why(self) -> str:
        """Return what is known of the end, in one line."""
        return str(self.args[1])
