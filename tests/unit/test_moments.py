"""What a camera's photos of minutes before and after say of a place: reach, majority, and two cameras of one model."""

from __future__ import annotations

from msgspec.structs import replace

from producer_client.contract import Hit
from tests.hits import HERE, METRE, hit
from worker.place.moments import DRIVEN_MPS, OFF_M, WALKED_MPS, Moments, heard


def taken(photo_id: int, apart_s: float, north_m: float = 0.0, error_m: float | None = None) -> Hit:
    return replace(hit(photo_id, north_m=north_m, error_m=error_m), apart_s=apart_s)


def at(north_m: float) -> tuple[float, float]:
    return HERE[0] + north_m * METRE, HERE[1]


def test_a_place_is_where_the_camera_was_as_far_as_one_walks_and_out_of_reach_as_far_as_nobody_drives() -> None:
    camera = Moments([taken(1, -60.0)], one_camera=True)
    walked, driven = OFF_M + 60 * WALKED_MPS, OFF_M + 60 * DRIVEN_MPS

    said = {metres: camera.of(at(metres)) for metres in (0.0, walked - 1, walked + 1, driven - 1, driven + 1)}

    assert list(said.values()) == [1, 1, 0, 0, -1]


def test_what_a_camera_says_its_position_is_off_widens_both() -> None:
    camera = Moments([taken(1, 60.0, error_m=80.0)], one_camera=True)

    assert camera.of(at(OFF_M + 60 * WALKED_MPS + 79)) == 1
    assert camera.of(at(OFF_M + 60 * DRIVEN_MPS + 79)) == 0


def test_the_greater_number_is_believed() -> None:
    """One of the photos may lie at a wrong position."""
    camera = Moments([taken(1, 10.0, 90_000), taken(2, 20.0), taken(3, -30.0)], one_camera=True)

    assert camera.of(at(0)) == 1
    assert camera.of(at(90_000)) == -1
    assert Moments(camera.photos[:2], one_camera=True).of(at(0)) == 0


def test_photos_of_one_model_that_one_camera_cannot_have_taken_say_nothing() -> None:
    """Before and after: 100 s lie between the two, not 0."""
    far, near = OFF_M + 100 * DRIVEN_MPS + 1, OFF_M + 100 * DRIVEN_MPS - 1

    assert heard([taken(1, -50.0), taken(2, 50.0, far)], one_camera=False).photos == ()
    assert len(heard([taken(1, -50.0), taken(2, 50.0, near)], one_camera=False).photos) == 2
    assert len(heard([taken(1, -50.0), taken(2, 50.0, far)], one_camera=True).photos) == 2
    assert len(heard([taken(1, -50.0, error_m=9.0), taken(2, 50.0, far)], one_camera=False).photos) == 2
