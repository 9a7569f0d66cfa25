"""What travels with a session to another process."""

from verdigris.router.session import Session
from verdigris.router.succession.luggage import LEFT, PACKED


def test_whoever_gives_a_session_something_decides_whether_it_travels() -> None:
    assert set(Session.__slots__) == PACKED | LEFT
    assert not PACKED & LEFT
