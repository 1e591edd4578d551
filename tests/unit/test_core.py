"""Laws of vectors, distances, settings and slots."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from producer_client.contract import Code, Provenance
from worker import settings as settings_page
from worker import settings_table
from worker.core.geo import EARTH_RADIUS_M, bounding_box, distance_m, weighted_centre
from worker.core.vectors import BadVector, from_bytes, to_bytes, unit_query, unit_rows
from worker.roots import faults
from worker.settings import PREFIX, Settings
from worker.tasks.index import latest_slot

some = settings(derandomize=True, max_examples=100)

DEGREE_M = 111_195.08

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
lats, lons = st.floats(-90, 90), st.floats(-180, 180)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


# -------------------------------------------------------------------------------------------- vectors


@some
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite32))
def test_every_row_comes_out_with_length_one_and_its_own_direction(rows: npt.NDArray[np.float32]) -> None:
    rows = rows[np.any(rows != 0, axis=1)]

    unit = unit_rows(rows)

    assert unit.dtype == np.float32
    assert unit.shape == rows.shape
    wide = rows.astype(np.float64)
    cosines = np.einsum("nd,nd->n", unit.astype(np.float64), wide) / np.linalg.norm(wide, axis=1)
    np.testing.assert_allclose(cosines, 1.0, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_any_type_of_number_is_scaled(kind: type[np.generic]) -> None:
    unit = unit_rows(np.array([[3, 4]], dtype=kind))

    np.testing.assert_allclose(unit, [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [-math.inf, math.inf]])
def test_a_row_without_a_direction_is_named(bad: list[float]) -> None:
    with pytest.raises(BadVector, match="row 1 of 3") as caught:
        unit_rows(np.array([[1.0, 0.0], bad, [0.0, 0.0]]))

    assert caught.value.code is Code.BAD_VECTOR


def test_no_rows_are_no_error() -> None:
    assert unit_rows(np.zeros((0, 4), dtype=np.float32)).shape == (0, 4)


def test_a_query_of_any_length_becomes_a_unit_vector() -> None:
    query = unit_query([30.0, 40.0], 2)

    assert query.shape == (2,)
    np.testing.assert_allclose(query, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("vector", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_query_of_another_dimension_is_refused_with_both_numbers(vector: list[float]) -> None:
    with pytest.raises(BadVector, match=f"has {len(vector)} numbers; this model's have 2"):
        unit_query(vector, 2)


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
def test_a_query_without_a_direction_is_refused(vector: list[float]) -> None:
    with pytest.raises(BadVector):
        unit_query(vector, 2)


@some
@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_a_vector_comes_back_from_its_bytes_bit_by_bit(vector: npt.NDArray[np.float32]) -> None:
    stored = to_bytes(vector)

    assert len(stored) == 4 * len(vector)
    assert from_bytes(stored, len(vector)).tobytes() == vector.tobytes()


def test_stored_bytes_are_little_endian_whatever_came_in() -> None:
    big_endian = np.array([1.0, -2.5], dtype=">f4")
    strided = np.array([1.0, 9.0, -2.5, 9.0], dtype=np.float32)[::2]

    assert to_bytes(big_endian) == to_bytes(strided) == bytes.fromhex("0000803f000020c0")


@pytest.mark.parametrize("length", [0, 4, 7, 9, 12])
def test_stored_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(BadVector, match="2 numbers need 8"):
        from_bytes(b"\0" * length, 2)


# ------------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        ((0.0, 0.0), (0.0, 0.0), 0.0),
        ((0.0, 0.0), (1.0, 0.0), DEGREE_M),
        ((0.0, 0.0), (0.0, 1.0), DEGREE_M),
        ((60.0, 10.0), (60.0, 11.0), 55_597.0),
        ((0.0, 179.5), (0.0, -179.5), DEGREE_M),
        ((0.0, 180.0), (0.0, -180.0), 0.0),
        ((89.5, 0.0), (89.5, 180.0), DEGREE_M),
        ((90.0, 17.0), (90.0, -120.0), 0.0),
        ((0.0, 0.0), (0.0, 180.0), math.pi * EARTH_RADIUS_M),
        ((90.0, 0.0), (-90.0, 0.0), math.pi * EARTH_RADIUS_M),
        # Nashville to Los Angeles, as rosettacode.org/wiki/Haversine_formula has it for a radius of 6372.8 km.
        ((36.12, -86.67), (33.94, -118.40), 2_887_259.9506 * EARTH_RADIUS_M / 6_372_800),
    ],
)
def test_known_distances(a: tuple[float, float], b: tuple[float, float], metres: float) -> None:
    assert distance_m(*a, *b) == pytest.approx(metres, rel=1e-5, abs=1e-6)


def test_points_one_metre_apart_are_one_metre_apart() -> None:
    assert distance_m(50.0, 14.0, 50.0 + 1 / DEGREE_M, 14.0) == pytest.approx(1.0, rel=1e-6)


@some
@given(lats, lons, lats, lons)
def test_a_distance_is_the_same_from_both_ends_and_never_beyond_the_antipode(
    lat_a: float, lon_a: float, lat_b: float, lon_b: float
) -> None:
    there, back = distance_m(lat_a, lon_a, lat_b, lon_b), distance_m(lat_b, lon_b, lat_a, lon_a)

    assert there == pytest.approx(back, abs=1e-6)
    assert 0 <= there <= math.pi * EARTH_RADIUS_M * (1 + 1e-12)


@some
@given(lats, lons)
def test_the_antipode_is_half_a_turn_away(lat: float, lon: float) -> None:
    opposite = lon - 180 if lon > 0 else lon + 180

    assert distance_m(lat, lon, -lat, opposite) == pytest.approx(math.pi * EARTH_RADIUS_M, rel=1e-6)


def destination(lat: float, lon: float, bearing: float, metres: float) -> tuple[float, float]:
    """The point `metres` away in direction `bearing` (radians), by the textbook formula."""
    phi, angle = math.radians(lat), metres / EARTH_RADIUS_M
    sine = math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(bearing)
    there = math.asin(max(-1.0, min(1.0, sine)))
    turn = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(phi), math.cos(angle) - math.sin(phi) * math.sin(there)
    )
    return math.degrees(there), (lon + math.degrees(turn) + 540) % 360 - 180


@settings(derandomize=True, max_examples=500)
@given(
    lat=lats | st.sampled_from([90.0, -90.0, 89.999, -89.999]),
    lon=lons | st.sampled_from([180.0, -180.0, 179.9999, -179.9999]),
    radius=st.floats(0.1, 21_000_000) | st.floats(1, 5_000),
    bearing=st.floats(0, 2 * math.pi),
    share=st.floats(0, 1),
)
def test_every_point_of_a_circle_lies_in_its_box(
    lat: float, lon: float, radius: float, bearing: float, share: float
) -> None:
    there_lat, there_lon = destination(lat, lon, bearing, radius * share)
    if distance_m(lat, lon, there_lat, there_lon) > radius:  # rounding, or once around the Earth
        return

    south, north, ranges = bounding_box(lat, lon, radius)

    slack = 1e-6
    assert south - slack <= there_lat <= north + slack
    near_pole = abs(there_lat) > 90 - slack  # every longitude is the same place there
    same_meridian = (there_lon, there_lon - 360, there_lon + 360)
    assert near_pole or any(
        west - slack <= meridian <= east + slack for west, east in ranges for meridian in same_meridian
    )


@some
@given(lats, lons, st.floats(0.1, 21_000_000))
def test_a_box_speaks_in_degrees_that_exist(lat: float, lon: float, radius: float) -> None:
    south, north, ranges = bounding_box(lat, lon, radius)

    assert -90 <= south <= north <= 90
    assert 1 <= len(ranges) <= 2
    assert all(-180 <= west <= east <= 180 for west, east in ranges)


def test_a_small_circle_has_a_small_box() -> None:
    south, north, [(west, east)] = bounding_box(60.0, 10.0, DEGREE_M)

    assert (south, north) == pytest.approx((59.0, 61.0), abs=1e-4)
    assert (west, east) == pytest.approx((8.0, 12.0), abs=1e-2)


@pytest.mark.parametrize("lat", [0.0, 50.0, 80.0, -80.0])
def test_a_box_touches_its_circle_where_that_is_widest_which_is_nearer_to_the_pole(lat: float) -> None:
    angle = math.radians(9)
    widest_lat = math.degrees(math.asin(math.sin(math.radians(lat)) / math.cos(angle)))

    _, _, [(west, east)] = bounding_box(lat, 10.0, angle * EARTH_RADIUS_M)

    for lon in (west, east):
        assert distance_m(lat, 10.0, widest_lat, lon) == pytest.approx(angle * EARTH_RADIUS_M, rel=1e-9)


@pytest.mark.parametrize("lon", [179.9, -179.9])
def test_a_circle_over_the_date_line_has_two_ranges(lon: float) -> None:
    _, _, ranges = bounding_box(0.0, lon, DEGREE_M)

    (west, end), (begin, east) = ranges
    assert (end, begin) == (180.0, -180.0)
    assert west == pytest.approx((lon - 1) % 360, abs=1e-3)
    assert east == pytest.approx((lon + 1 + 180) % 360 - 180, abs=1e-3)


@pytest.mark.parametrize("lat", [90.0, -90.0, 89.9, -89.9])
def test_a_circle_over_a_pole_holds_every_longitude(lat: float) -> None:
    south, north, ranges = bounding_box(lat, 25.0, DEGREE_M)

    assert ranges == [(-180.0, 180.0)]
    assert (north == 90.0) if lat > 0 else (south == -90.0)


@pytest.mark.parametrize(
    ("points", "weights", "centre"),
    [
        ([(10.0, 20.0)], [0.3], (10.0, 20.0)),
        ([(0.0, 0.0), (0.0, 2.0)], [1.0, 1.0], (0.0, 1.0)),
        ([(0.0, 0.0), (0.0, 1.0)], [3.0, 1.0], (0.0, 0.25)),
        ([(0.0, 179.0), (0.0, -179.0)], [1.0, 1.0], (0.0, 180.0)),
        ([(0.0, 179.9), (0.0, -179.9)], [3.0, 1.0], (0.0, 179.95)),
        ([(0.0, 0.0), (0.0, 90.0)], [1.0, 0.0], (0.0, 0.0)),
        ([(89.0, 0.0), (89.0, 180.0)], [1.0, 1.0], (90.0, None)),
    ],
)
def test_a_centre_is_where_the_weights_balance(
    points: list[tuple[float, float]], weights: list[float], centre: tuple[float, float | None]
) -> None:
    lat, lon = weighted_centre(points, weights)

    assert lat == pytest.approx(centre[0], abs=1e-3)
    if centre[1] is not None:
        assert (
            abs(lon) == pytest.approx(centre[1], abs=1e-3)
            if centre[1] == 180
            else lon == pytest.approx(centre[1], abs=1e-3)
        )


def test_points_without_weights_of_their_own_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        weighted_centre([(0.0, 0.0), (1.0, 1.0)], [1.0])


# ------------------------------------------------------------------------------------------- settings


def test_settings_do_not_change_after_reading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().encode_batch = 3  # type: ignore[misc]  # that it is read-only is the fact


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGHTLINE_ENCODE_BATCH", "7")
    monkeypatch.setenv("SIGHTLINE_URL_PRIVATE", "true")
    monkeypatch.setenv("SIGHTLINE_NOBODY_KNOWS_THIS", "x")

    read = settings_page.load(data_dir=tmp_path)

    assert (read.encode_batch, read.url_private) == (7, True)


def test_the_file_of_the_running_servers_fills_what_the_environment_leaves_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "up.env").write_text("SIGHTLINE_BROKER_URL=redis://file:1/0\nSIGHTLINE_ENCODE_BATCH=3\n")
    monkeypatch.setenv("SIGHTLINE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SIGHTLINE_ENCODE_BATCH", "7")

    read = settings_page.load()

    assert (read.broker_url, read.encode_batch) == ("redis://file:1/0", 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("broker_url", "redis://:s3cret@a:1/5"), ("result_backend", "redis://:s3cret@b:1/5"),
     ("database_url", "postgresql+psycopg2://u:s3cret@c/d")],
)  # fmt: skip
def test_an_address_may_lie_in_a_file_which_goes_before_the_running_servers_and_behind_the_variable_itself(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{value}\n")
    secret.chmod(0o600)
    variable = PREFIX + name.upper()
    (tmp_path / "up.env").write_text(f"{variable}=redis://note:1/0\n")
    monkeypatch.setenv(f"{variable}_FILE", str(secret))

    assert getattr(Settings(), name) == value
    assert getattr(settings_page.load(data_dir=tmp_path), name) == value
    assert name in Settings().model_fields_set, "as if it had been given"

    monkeypatch.setenv(variable, value.replace("s3cret", "other"))
    assert getattr(settings_page.load(data_dir=tmp_path), name) == value.replace("s3cret", "other")


@pytest.mark.parametrize("name", ["broker_url", "result_backend", "database_url"])
@pytest.mark.parametrize("mode", [None, 0o644], ids=["none", "open to others"])
def test_a_file_of_an_address_that_cannot_be_trusted_is_an_error_not_a_default(
    name: str, mode: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    if mode is not None:
        secret.write_text("redis://:s3cret@a:1/5")
        secret.chmod(mode)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}_FILE", str(secret))

    with pytest.raises(ValidationError) as caught:
        Settings()

    assert [error["loc"][0] for error in caught.value.errors()] == [f"{name}_file"]
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [("", ()), ("a.org", ("a.org",)), (" a.org , b.org,", ("a.org", "b.org")), (",,", ())],
)
def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch, written: str, read: tuple[str, ...]) -> None:
    monkeypatch.setenv("SIGHTLINE_URL_HOSTS", written)

    assert Settings().url_hosts == read


def test_photo_roots_are_absolute_and_links_stay_the_names_they_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGHTLINE_PHOTO_ROOTS", f"link, {tmp_path}/other, link/../real")

    assert Settings().photo_roots == (tmp_path / "link", tmp_path / "other", (tmp_path / "real").resolve())


@pytest.mark.parametrize(
    ("location_method", "provenance"),
    [
        ("exif", Provenance.EXIF_GPS),
        ("gps", Provenance.EXIF_GPS),
        ("manual", Provenance.CONFIRMED),
        ("user", Provenance.CONFIRMED),
        ("city_center", Provenance.FALLBACK),
        ("default", Provenance.FALLBACK),
        ("exif_gps", Provenance.EXIF_GPS),
        ("surveyed", Provenance.SURVEYED),
        ("confirmed", Provenance.CONFIRMED),
        ("derived", Provenance.DERIVED),
        ("fallback", Provenance.FALLBACK),
        ("clip", Provenance.DERIVED),
        ("EXIF", Provenance.DERIVED),
        ("", Provenance.DERIVED),
        (None, Provenance.DERIVED),
    ],
)
def test_an_unknown_location_method_is_never_evidence(location_method: str | None, provenance: Provenance) -> None:
    assert Settings().provenance_of(location_method) is provenance


def test_location_methods_are_written_as_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LOCATION_METHODS", "tachymeter=surveyed,guess=fallback")

    read = Settings()

    assert read.provenance_of("tachymeter") is Provenance.SURVEYED
    assert read.provenance_of("guess") is Provenance.FALLBACK
    assert read.provenance_of("exif") is Provenance.DERIVED


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_bare_postgres_address_gets_the_driver_that_is_installed(scheme: str) -> None:
    read = Settings(database_url=f"{scheme}://me:pass@host:5432/db?sslmode=require")

    assert read.database_url == "postgresql+psycopg2://me:pass@host:5432/db?sslmode=require"


@pytest.mark.parametrize(
    "given_settings",
    [
        {},
        {"broker_url": "redis://h:1/2", "result_backend": "", "url_private": True},
        {"photo_roots": ("/srv/a", "/srv/b"), "url_hosts": ("a.org", "b.org"), "url_schemes": ("http", "s3")},
        {"photo_roots": (), "location_methods": {"gps": "exif_gps", "x": "fallback"}},
        {"location_methods": {}, "photos_columns": {"lat": "latitude", "id": "nr"}},
        {"url_timeout_s": 0.25, "locate_min_share": 1.0, "max_megapixels": 12.5, "rebuild_at": "23:59"},
        {"index_dir": "/srv/index", "database_url": "postgresql://h/db"},
        {"key_prefix": ""},
        {"key_prefix": "shop:photos:"},
    ],
)
def test_another_process_reads_the_same_settings_from_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given_settings: dict[str, Any]
) -> None:
    first = Settings(data_dir=tmp_path, **given_settings)

    for name, value in first.as_env().items():
        monkeypatch.setenv(name, value)

    assert settings_page.load() == first


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is None])
def test_empty_is_unset_where_unset_is_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SIGHTLINE_{name.upper()}", "")

    assert getattr(Settings(), name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encode_batch", "0"),
        ("key_prefix", "sightline"),
        ("key_prefix", "a b:"),
        ("key_prefix", "*"),
        ("encode_batch", "many"),
        ("concurrency", "-1"),
        ("url_timeout_s", "0"),
        ("max_photo_bytes", "0"),
        ("locate_min_share", "1.1"),
        ("locate_min_share", "0"),
        ("rebuild_at", "3:00"),
        ("rebuild_at", "24:00"),
        ("rebuild_at", "03:60"),
        ("up_port", "65536"),
        ("url_private", "perhaps"),
        ("location_methods", "gps=somewhere"),
        ("photos_columns", "latitude"),
        ("photos_columns", "latitude=lat"),
        ("photos_columns", "lat=y,lon=y"),
        ("photos_columns", "lat=lon"),
        ("photos_columns", 'lat=x"; DROP TABLE photos'),
        ("visibility_timeout_s", "1"),
        ("device", "bogus"),
        ("url_schemes", "https,ftp"),
        ("index_kind", "bogus"),
        ("log_level", "debug"),
        ("broker_url", "redis://a?socket_timeout=5"),
        ("result_backend", "rediss://a"),
    ],
)
def test_a_setting_out_of_its_range_is_an_error_not_a_default(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), value)

    with pytest.raises(ValidationError) as caught:
        Settings()

    assert caught.value.errors()[0]["loc"][0] == name


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is float])
def test_no_number_among_settings_is_without_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("inf", "nan", *(["1e20"] if name.endswith("_s") else [])):
        monkeypatch.setenv(PREFIX + name.upper(), value)
        with pytest.raises(ValidationError, match=name):
            Settings()


def test_a_folder_without_an_entry_is_told_like_one_that_is_not_there(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "01.jpg").touch()

    told = faults([empty, full, tmp_path / "none"])

    assert list(told) == [empty, tmp_path / "none"]
    assert "it is empty" in told[empty]


def test_the_index_lies_in_the_data_folder_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).generations_dir == tmp_path / "index"
    assert Settings(data_dir=tmp_path, index_dir=Path("/srv/i")).generations_dir == Path("/srv/i")


def test_replies_lie_in_the_broker_unless_it_is_told_otherwise() -> None:
    assert Settings(broker_url="redis://a").replies_url == "redis://a"
    assert Settings(broker_url="redis://a", result_backend="redis://b").replies_url == "redis://b"


def test_every_setting_is_a_row_of_the_table() -> None:
    rows = [row.split(" | ") for row in settings_table.as_markdown().splitlines()[2:]]

    assert sorted(name for name, *_ in rows) == sorted(f"| `{PREFIX}{name.upper()}`" for name in Settings.model_fields)
    assert all(len(row[-1]) > 20 for row in rows)


# ---------------------------------------------------------------------------------------------- slots


def utc(day: int, hour: int, minute: int, second: int = 0, microsecond: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, second, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "now", "slot"),
    [
        ("03:00", utc(10, 12, 0), utc(10, 3, 0)),
        ("03:00", utc(10, 2, 59, 59, 999_999), utc(9, 3, 0)),
        ("03:00", utc(10, 3, 0), utc(10, 3, 0)),
        ("03:00", utc(10, 3, 0, 0, 1), utc(10, 3, 0)),
        ("00:00", utc(10, 0, 0), utc(10, 0, 0)),
        ("00:00", utc(10, 23, 59, 59), utc(10, 0, 0)),
        ("23:59", utc(10, 0, 0), utc(9, 23, 59)),
        ("23:59", utc(1, 12, 0), datetime(2026, 2, 28, 23, 59, tzinfo=UTC)),
        ("03:00", datetime(2026, 3, 10, 4, 30, tzinfo=timezone(timedelta(hours=2))), utc(9, 3, 0)),
        ("03:00", datetime(2026, 3, 9, 23, 30, tzinfo=timezone(timedelta(hours=-5))), utc(10, 3, 0)),
    ],
)
def test_the_latest_slot(at: str, now: datetime, slot: datetime) -> None:
    assert latest_slot(at, now) == slot


def test_a_time_without_a_zone_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="offset-naive"):
        latest_slot("03:00", datetime(2026, 3, 10, 12, 0))


@some
@given(
    now=st.datetimes(datetime(1990, 1, 2), datetime(2100, 1, 1), timezones=st.timezones()),
    at=st.times().map(lambda time: f"{time:%H:%M}"),
)
def test_a_slot_is_within_the_day_before_now(now: datetime, at: str) -> None:
    slot = latest_slot(at, now)

    assert slot <= now
    assert now - slot < timedelta(hours=24)
    assert f"{slot:%H:%M}" == at
    assert slot.utcoffset() == timedelta(0)
