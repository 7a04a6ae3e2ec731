"""Only processes of the system that is struck are found, and each by its kind."""

from tests.chaos.schedule import Kind
from tests.chaos.victims import Process, descendants, titled

UP = Process(10, 1, "python -m serve.cli up")
RAYLET = Process(11, 10, "raylet")
SUPERVISOR = Process(15, 11, "ray::Supervisor")
NOZZLES = [Process(12, 11, "ray::NozzleRole.run"), Process(14, 11, "ray::NozzleRole")]
EDGE = Process(16, 11, "ray::ServeReplica:raywire:edge")
OURS = [RAYLET, NOZZLES[0], NOZZLES[1], SUPERVISOR, EDGE]
OTHERS = [Process(20, 1, "raylet"), Process(21, 20, "ray::NozzleRole")]


def test_descendants_are_found_at_any_depth() -> None:
    """Another system on the machine is left alone."""
    assert descendants([*OTHERS, EDGE, UP, *OURS[:4]], UP.pid) == OURS


def test_actors_are_found_idle_and_busy() -> None:
    """Ray appends the method while an actor is busy."""
    assert titled(OURS, Kind.KILL_NOZZLE) == NOZZLES
    assert titled(OURS, Kind.FREEZE_NOZZLE) == NOZZLES
    assert titled(OURS, Kind.KILL_EDGE) == [EDGE]


def test_longer_name_is_another_actor() -> None:
    """A class whose name only begins the same is not meant."""
    assert titled([Process(30, 11, "ray::SupervisorOfAll")], Kind.KILL_SUPERVISOR) == []
