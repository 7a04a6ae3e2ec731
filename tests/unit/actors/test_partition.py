"""Partitions and key names, which producers in other languages rely on."""

import zlib

from actors.partition import Keys, partition_of


def test_partition_is_crc32_of_the_utf8_name() -> None:
    """Any language can compute it."""
    assert partition_of("news:a", 8) == zlib.crc32(b"news:a") % 8
    assert {partition_of(f"c{n}", 8) for n in range(100)} == set(range(8))


def test_keys_of_a_partition_share_a_hash_slot() -> None:
    """Every key of a partition has its number in literal braces, and the app in front."""
    keys = Keys("app")
    assert keys.queue(3) == "app:{3}:queue"
    names = [
        keys.applied(3), keys.feed(3), keys.dead(3), keys.meta(3, "c"), keys.history(3, "c"),
        keys.counters(3, "c"), keys.first_result(3, "c", "k"), keys.producer(3, "me"),
        keys.presence(3, "c"), keys.presence_expiry(3, "c"),
    ]  # fmt: skip
    assert all(name.startswith("app:{3}:") for name in names)
    assert len(set(names)) == len(names)


def test_keys_of_an_edge_share_a_hash_slot() -> None:
    """One script uses both."""
    keys = Keys("app")
    assert keys.box("e1") == "app:emulation:{e1}"
    assert keys.box_open("e1").startswith(keys.box("e1"))
