"""What the supervisor says before there is any actor; tests/cluster/ has the rest."""

import pytest

from actors.errors import SettingsError
from actors.settings.tree import Settings, StageSettings
from actors.supervisor import Supervisor


def test_what_ray_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its thread would end, and whoever starts the pipeline wait in vain until it is ready."""
    monkeypatch.setattr("actors.supervisor.logs.set_up", lambda *_, **__: None)
    stage = StageSettings().model_copy(update={"resources": {"GPU": 1}})
    supervisor = Supervisor(Settings(stages=(stage,)), "redis://127.0.0.1:1/0")

    supervisor._thread.join(10)

    with pytest.raises(SettingsError, match=r"transformer:transform:0: .*num_gpus"):
        supervisor.is_ready()
    supervisor.stop()
