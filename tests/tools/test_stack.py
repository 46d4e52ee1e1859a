import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pymongo
import pytest
import redis

from dev.blog import Blog
from dev.compose import Compose
from dev.posts import add_blog
from dev.stack import Platform, Ports, ServerError, development_stack
from notifications.preferences import Preferences

TABLES = {
    *("users", "profiles", "sessions"),
    *("posts", "categories", "tags", "post_categories", "post_tags", "comments", "likes", "bookmarks"),
    *("media", "media_variants"),
}


def processes_of(platform: Platform) -> list[int]:
    def belongs(process: psutil.Process) -> bool:
        try:
            words = process.cmdline()
        except psutil.Error:
            return False
        return any(str(platform.directory) in word for word in words) and process.pid != os.getpid()

    return [process.pid for process in psutil.process_iter() if belongs(process)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for this process to collect it does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_second_up_is_quick_and_the_same_servers_stay(platform: Platform) -> None:
    before = [server.pid for server in platform.servers]
    began = time.monotonic()
    Platform(platform.directory, platform.ports).up(print)
    assert time.monotonic() - began < 2
    assert [server.pid for server in platform.servers] == before
    assert all(server.ready() for server in platform.servers)


def test_all_servers_start_in_a_directory_with_spaces_and_letters_beyond_ascii(tmp_path: Path) -> None:
    servers = Platform(tmp_path / "Prüf stand 東京 😀 'a'", Ports.free())
    try:
        servers.up(print)
        assert all(server.ready() for server in servers.servers)
        assert (servers.kafka.directory / "data" / "meta.properties").exists()
    finally:
        servers.forget()


def test_down_leaves_no_process_and_the_next_up_finds_the_data(platform: Platform) -> None:
    pids = [server.pid for server in platform.servers]
    assert len(processes_of(platform)) >= 1
    pymongo.MongoClient[dict[str, int]](platform.mongo.url).get_default_database()["kept"].insert_one({"_id": 1})
    redis.Redis.from_url(platform.redis.url).set("kept", "1")
    with psycopg.connect(platform.postgres.owner_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")

    platform.down()
    assert processes_of(platform) == []
    assert not any(alive(pid) for pid in pids if pid is not None)
    assert set(platform.states().values()) == {"not running"}
    platform.down()  # nothing to do is no fault

    began = time.monotonic()
    platform.up(print)
    assert time.monotonic() - began < 30
    found = pymongo.MongoClient[dict[str, int]](platform.mongo.url).get_default_database()["kept"].find_one()
    assert found == {"_id": 1}
    assert redis.Redis.from_url(platform.redis.url).get("kept") == b"1"
    with psycopg.connect(platform.postgres.owner_url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        connection.execute("DROP TABLE kept")


@pytest.mark.parametrize("name", ["kafka", "mongo", "postgres", "redis", "inbox"])
def test_a_killed_server_starts_again(platform: Platform, name: str) -> None:
    server = {server.name: server for server in platform.servers}[name]
    pid = server.pid
    server.kill()
    assert not server.is_running
    assert not server.ready()
    server.start()
    assert server.ready()
    assert server.pid != pid


@pytest.mark.parametrize("name", ["kafka", "mongo", "postgres", "redis", "inbox"])
def test_a_paused_server_does_not_answer_until_it_is_resumed(platform: Platform, name: str) -> None:
    server = {server.name: server for server in platform.servers}[name]
    server.pause()
    try:
        assert server.is_running
        assert not server.ready()
    finally:
        server.resume()
    server.start()  # runs already: waits until it is ready
    assert server.ready()


def test_mongo_is_a_replica_set_that_acknowledges_by_majority(platform: Platform) -> None:
    client = pymongo.MongoClient[dict[str, object]](platform.mongo.url, w="majority", journal=True)
    assert client.get_default_database().name == "blog-platform"
    client.get_default_database()["acknowledged"].insert_one({"a": 1})
    client.get_default_database().drop_collection("acknowledged")
    assert client.admin.command("hello")["setName"] == "rs0"


def test_postgres_has_the_tables_of_the_platform(platform: Platform) -> None:
    with psycopg.connect(platform.postgres.owner_url) as connection:
        rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        assert {name for (name,) in rows} >= TABLES


def test_the_workers_role_reads_posts_and_writes_nothing_but_their_view_count(platform: Platform) -> None:
    with psycopg.connect(platform.postgres.url, autocommit=True) as connection:
        connection.execute("SELECT * FROM users, profiles, posts")
        connection.execute('UPDATE posts SET "viewCount" = 1 WHERE false')
        connection.execute("CREATE SCHEMA IF NOT EXISTS made_by_the_worker")
        connection.execute("DROP SCHEMA made_by_the_worker")
        for refused in ("UPDATE posts SET title = ''", "DELETE FROM posts", "SELECT * FROM sessions"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)


def test_the_workers_role_reads_whom_it_can_reach_and_no_table_behind_that(platform: Platform) -> None:
    blog = Blog()
    add_blog(platform.owner_url, blog)
    with psycopg.connect(platform.postgres.url, autocommit=True) as connection:
        rows = connection.execute("SELECT user_id, email, devices, preferences FROM notification_recipients").fetchall()
        for refused in ("SELECT * FROM devices", "SELECT * FROM notification_preferences"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)
    found = {user_id: (email, devices, preferences) for user_id, email, devices, preferences in rows}
    for person in blog.people:
        email, devices, preferences = found[person.id]
        assert email == person.email
        assert {(device["token"], device["platform"]) for device in devices or ()} == {
            (device.token, device.platform) for device in person.devices
        }
        assert Preferences.model_validate(preferences or {}) == person.preferences


def test_a_taken_port_is_named_with_the_setting_that_moves_it(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        other = Platform(tmp_path / "other", replace(Ports.free(), redis=port))
        with pytest.raises(ServerError, match=f"port {port}.*INKSTREAM_STACK_REDIS_PORT"):
            other.redis.start()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    other = Platform(tmp_path / "other", Ports.free())
    broken = other.redis.directory / "appendonly.aof"
    broken.parent.mkdir(parents=True)
    broken.write_text("this is no append-only file")
    with pytest.raises(ServerError, match=r"redis ended while starting(.|\n)*redis\.log(.|\n)*[Bb]ad file format"):
        other.redis.start()


def test_a_stranger_with_the_process_id_of_a_server_is_left_alone(tmp_path: Path) -> None:
    other = Platform(tmp_path, Ports.free())
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / "redis.process.json").write_text(json.dumps({"pid": stranger.pid, "command": ["redis-server"]}))
        assert other.redis.pid is None
        other.redis.kill()
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


def test_both_ways_lead_to_the_same_addresses() -> None:
    native = development_stack({"INKSTREAM_STACK": "native"}).environment()
    docker = development_stack({"INKSTREAM_STACK": "docker"}).environment()
    assert isinstance(development_stack({"INKSTREAM_STACK": "docker"}), Compose)
    docker["INKSTREAM_MONGO_URL"] = docker["INKSTREAM_MONGO_URL"].removesuffix("&directConnection=true")
    assert native == docker


@pytest.mark.parametrize("way", ["native", "docker"])
def test_every_port_that_is_moved_is_in_the_addresses_both_ways(way: str) -> None:
    names = ("kafka", "mongo", "postgres", "redis", "smtp", "inbox", "worker")
    moved = {Ports.setting(name): str(23_000 + number) for number, name in enumerate(names)}
    stack = development_stack({"INKSTREAM_STACK": way, **moved})
    addresses = " ".join([*stack.environment().values(), stack.inbox_url, stack.owner_url])
    assert [name for name in names if moved[Ports.setting(name)] not in addresses] == []
    assert stack.environment()["INKSTREAM_WEB_PORT"] == moved["INKSTREAM_STACK_WORKER_PORT"]


def test_a_worker_port_that_is_not_moved_leaves_the_workers_own_setting_in_force() -> None:
    assert "INKSTREAM_WEB_PORT" not in development_stack({"INKSTREAM_STACK": "native"}).environment()


@pytest.mark.parametrize("way", ["native", "docker"])
def test_a_setting_of_the_stack_that_does_not_exist_is_named_with_the_nearest(way: str) -> None:
    with pytest.raises(ServerError, match=r"INKSTREAM_STACK_WORKR_PORT is no .*INKSTREAM_STACK_WORKER_PORT\?"):
        development_stack({"INKSTREAM_STACK": way, "INKSTREAM_STACK_WORKR_PORT": "1"})


@pytest.mark.parametrize(
    ("setting", "value"),
    [("INKSTREAM_STACK", "podman"), ("INKSTREAM_STACK_KAFKA_PORT", "high"), ("INKSTREAM_STACK_REDIS_PORT", "70000")],
)
def test_a_bad_setting_is_named(setting: str, value: str) -> None:
    with pytest.raises(ServerError, match=f"{setting} is '{value}'"):
        development_stack({"INKSTREAM_STACK": "native", setting: value})


def test_the_addresses_are_printed_for_programs() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "dev.stack", "environment", "--json"],
        env={**os.environ, "INKSTREAM_STACK": "native", "INKSTREAM_STACK_KAFKA_PORT": "29292"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(printed.stdout)["INKSTREAM_KAFKA_BROKERS"] == "127.0.0.1:29292"
