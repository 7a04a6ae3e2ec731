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


class LostActorError(UnavailableError):
    """Retry later: an actor on the way of a batch died, or cannot be reached.

    The batch may have taken effect. What it holds may be what killed the actor.
    """


class CrashError(RaywireError):
    """Try with less: the batch ended the process of a transformer that worked on nothing else.

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
