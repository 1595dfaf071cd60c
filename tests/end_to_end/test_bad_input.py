# SPDX-License-Identifier: BSD-3-Clause
"""Wrong input to a running network: one clear sentence, a non-zero exit, nothing lost."""

from __future__ import annotations

import gc
import socket
import sqlite3

import pytest
import structlog

from monetor_chain.embedded import EmbeddedChain
from offchain.agents.download import STALL_SECONDS, DownloadError
from offchain.cli.main import main
from offchain.store import Store
from offchain.transport.identity import RouterIdentity
from tests.end_to_end.conftest import monetor
from tests.end_to_end.file_server import FileServer

# --- without a network


@pytest.fixture(autouse=True)
def log_of_this_process():
    """A command configures the log for its process; this one goes on."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(("url", "said"), [
    ("https://127.0.0.1/file", "is no http:// URL"),
    ("ftp://127.0.0.1/file", "is no http:// URL"),
    ("127.0.0.1/file", "is no http:// URL"),
    ("http:///file", "names no host"),
    ("http://127.0.0.1:99999/", "is no URL"),
    ("http://127.0.0.1/a b", "percent-encoded"),
])
@pytest.mark.parametrize("command", [("demo", "--json", "--url"), ("client",)])
def test_a_wrong_url_is_told_at_once(command, url, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, url])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "") and said in err and len(err.splitlines()) == 1


def test_an_unknown_dispute_is_told_with_those_there_are():
    status, out, err = monetor("demo", "--json", "--dispute", "nobody-pays", seconds=20)
    assert (status, out) == (1, "") and len(err.splitlines()) == 1
    assert "'nobody-pays'" in err and "relay-vanishes" in err


def test_a_taken_port_of_the_chain():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = monetor("chain", "--port", port, seconds=30)
    assert status != 0 and str(port) in err and "Traceback" not in err


# --- agents of a running network, in processes of their own


class At:
    """Runs agents' commands, in this process, on the background network's chain and directory."""

    def __init__(self, background, folder, capsys, caplog):
        self.capsys, self.caplog = capsys, caplog
        self.network = background.network
        self.folder = folder
        self.url = self.network.chain_process.url
        self.deployments = self.network.options.folder / "deployments"
        self.directory = self.network.authority.url

    def refuses(self, *command, **changed):
        options = {"network": self.url, "deployments": self.deployments,
                   "folder": self.folder, **changed}
        if command[0] != "authority":
            options.setdefault("directory", self.directory)
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in (*command, *(
                part for name, value in options.items() for part in (f"--{name}", value)))])
        gc.collect()
        err = self.capsys.readouterr().err + self.caplog.text
        assert ended.value.code == 1
        lines = [line for line in err.splitlines() if line.startswith("monetor: ")]
        assert len(lines) == 1 and "Traceback" not in err and "Unclosed" not in err, err
        return lines[0]


@pytest.fixture
def at(background, tmp_path, capsys, caplog):
    return At(background, tmp_path / "agent", capsys, caplog)


def test_a_store_of_another_network(at):
    at.folder.mkdir()
    Store(at.folder / "store.sqlite", bytes(32), "relay").close()
    assert "belongs to another network" in at.refuses("relay", "stranger")


def test_a_store_of_another_role(at, background):
    at.folder.mkdir()
    Store(at.folder / "store.sqlite", background.network.client.access.network, "client").close()
    assert "is the store of a client, not of a relay" in at.refuses("relay", "stranger")


def test_a_half_written_store(at):
    at.folder.mkdir()
    with sqlite3.connect(at.folder / "store.sqlite") as connection:
        connection.execute("CREATE TABLE identity (version INTEGER, network BLOB, role TEXT)")
    connection.close()
    assert "half-written" in at.refuses("relay", "stranger")


def test_a_store_that_is_none(at):
    at.folder.mkdir()
    (at.folder / "store.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4096))
    assert "is no usable moneTor store" in at.refuses("client", "http://127.0.0.1/")


@pytest.mark.parametrize(("command", "name"), [
    (("intermediary", "stranger"), "issuer.key"), (("authority", "stranger"), "authority.key")])
def test_a_corrupt_key_file_is_named(at, command, name):
    at.folder.mkdir()
    (at.folder / name).write_bytes(b"\x01" * 31)
    assert name in at.refuses(*command)


def test_a_corrupt_router_key_is_named(at):
    RouterIdentity.generate().save(at.folder / "router")
    for file in (at.folder / "router").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    assert "no router identity in" in at.refuses("relay", "stranger")


def test_router_keys_that_a_crash_left_half_written_are_made_anew(background, tmp_path):
    place = background.network.place("half")
    partial = place.folder / "router.partial"
    partial.mkdir(parents=True)
    (partial / "rest").write_bytes(b"half")
    first = place.router_identity()
    assert place.router_identity().ed25519_identity == first.ed25519_identity


def test_a_port_in_use(at):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = at.refuses("relay", "stranger", port=taken.getsockname()[1])
    assert "choose another port" in said


def test_no_chain(at):
    assert "127.0.0.1:1" in at.refuses("relay", "stranger", network="http://127.0.0.1:1")


def test_no_contracts(at, tmp_path):
    said = at.refuses("relay", "stranger", deployments=tmp_path / "nothing")
    assert "no deployment on chain" in said


def test_a_record_of_contracts_that_are_elsewhere(at):
    """Same chain id, another chain: the record describes what is not there."""
    with EmbeddedChain() as other:
        assert "on another chain" in at.refuses("relay", "stranger", network=other.url)


def test_no_directory(at):
    said = at.refuses("relay", "stranger", directory="http://127.0.0.1:1")
    assert "the directory at http://127.0.0.1:1 does not answer" in said


def test_an_intermediary_that_cannot_pay_for_gas(at):
    assert "monetor: " in at.refuses("intermediary", "penniless-stranger")


def test_a_client_without_tokens(at):
    said = at.refuses("client", "http://127.0.0.1/", name="penniless-client", sessions="1",
                      channels="2")
    assert "gas" in said or "does not open" in said or "funds" in said


# --- downloads that do not work, on a circuit that goes on to work


def test_downloads_that_fail_say_why_and_leave_the_circuit_usable(background):
    client = background.network.client

    def refused(url):
        with pytest.raises(DownloadError) as caught:
            background.run(client.download(url))
        return str(caught.value)

    background.run(client.prepare_sessions(2))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert "CONNECTREFUSED" in refused(f"http://127.0.0.1:{port}/")
    assert "EXITPOLICY" in refused("http://192.0.2.1/")
    assert "RESOLVEFAILED" in refused("http://no-such-host.invalid/")
    with FileServer(1000) as server:
        server.status = 404
        assert "the server answers 'HTTP/1.0 404" in refused(server.url)
        server.status = 200
        server.stop_after = 0
        assert "stopped after 0 of 1000 bytes" in refused(server.url)
        server.stop_after = None
        found = background.run(client.download(server.url))
        assert found.sha256 == server.sha256
    with FileServer(0) as server:
        assert background.run(client.download(server.url)).size == 0
    assert STALL_SECONDS <= 120
    assert len(client.circuits) == 1
    background.run(client.close_sessions())
    assert background.network.client.engine.tasks.failure is None
