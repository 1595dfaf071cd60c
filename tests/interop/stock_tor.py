# SPDX-License-Identifier: BSD-3-Clause
"""The rig: unmodified tor processes on loopback, each with a folder of its own.

A process ends with the test that started it, at the latest with this Python process
(`__OwningControllerProcess`). Nothing here leaves the machine: the only directory authorities that
a process knows are those of the rig, or one that does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from offchain.transport.identity import RouterInfo, fingerprint

HOST = "127.0.0.1"
NOBODY = "F" * 40
PATIENCE = 60.0
"""Seconds that a process gets for anything; on a busy machine all of it may be needed."""

COMMON = f"""
Address {HOST}
TestingTorNetwork 1
AssumeReachable 1
ExtendAllowPrivateAddresses 1
SafeLogging 0
ProtocolWarnings 1
LogTimeGranularity 1
ShutdownWaitLength 0
ContactInfo nobody
AvoidDiskWrites 1
"""
# A stock exit refuses streams from relays that its own consensus does not list, and it may fetch
# that a minute after the clients have theirs: the rig does not wait for it.
RELAY = """
SocksPort 0
RefuseUnknownExits 0
ExitRelay 1
ExitPolicy accept 127.0.0.0/8:*
ExitPolicyRejectPrivate 0
ExitPolicyRejectLocalInterfaces 0
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
"""
# A relay without a network: nobody ever answers as its authority.
ALONE = f"""
PublishServerDescriptor 0
DirAuthority none orport=1 v3ident={NOBODY} {HOST}:2 {NOBODY}
"""
# A vote every ten seconds, and flags for everybody.
AUTHORITY = """
SocksPort 0
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingV3AuthInitialVotingInterval 10
V3AuthVotingInterval 10
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVoteDelay 2
V3AuthDistDelay 2
V3AuthNIntervalsValid 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
ExitRelay 0
"""


class TorError(Exception):
    """A tor process did not do what the test needs; the text has the end of its log."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Tor:
    """One stock tor process. `settings` is its torrc but for folders, logs and ports."""

    def __init__(self, folder: Path, name: str, settings: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True, mode=0o700)
        self.port = free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What it has said so far: warnings before it has read its settings, notices since."""
        return "".join(path.read_text(errors="replace")
                       for path in (self.folder / "output", self.folder / "notice.log")
                       if path.exists())

    def details(self) -> str:
        """What it has said of links and circuits at level info and above."""
        return (self.folder / "info.log").read_text(errors="replace")

    def start(self) -> None:
        torrc = self.folder / "torrc"
        torrc.write_text(
            f"DataDirectory {self.folder}\nNickname {self.name}\n"
            f"Log notice file {self.folder}/notice.log\n"
            f"Log [circ,channel,handshake,or,protocol,edge]info file {self.folder}/info.log\n"
            f"__OwningControllerProcess {os.getpid()}\n{COMMON}{self._settings}\n")
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["tor", "--hush", "--defaults-torrc", os.devnull, "-f", str(torrc)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def wait(self, ready, what: str, patience: float = PATIENCE) -> None:
        """Wait until `ready()` holds; TorError with the log's end if it never does."""
        end = time.monotonic() + patience
        while not ready():
            if self._process is None or self._process.poll() is not None:
                raise TorError(f"{self.name} has ended before {what}:\n{self.log()[-3000:]}")
            if time.monotonic() > end:
                raise TorError(f"{self.name}: no {what} in {patience:.0f} s:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def ready(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def warnings(self) -> list[str]:
        """Lines at level warn and above, but for those that every run on loopback has."""
        return [line for line in self.log().splitlines()
                if re.search(r"\[(warn|err)\]", line) and not _USUAL.search(line)]


_USUAL = re.compile(r"TestingTorNetwork|running Tor as root|ContactInfo|private IP|"
                    r"local host|insecure|AvoidDiskWrites|Fallback|directory authorit|"
                    r"Tor can.t help you|ExitRelay|MaxMind|SafeLogging|__Owning|bug reports",
                    re.IGNORECASE)


class StockRelay(Tor):
    """A stock relay; `network` are the torrc lines that name its authorities."""

    def __init__(self, folder: Path, name: str, network: str = ALONE, more: str = "") -> None:
        super().__init__(folder, name, RELAY + network + more)
        self._settings += f"ORPort {HOST}:{self.port}\n"

    def ready(self) -> bool:
        """Whether it takes connections and has its keys, which comes later."""
        return super().ready() and all((self.folder / "keys" / name).exists() for name in (
            "secret_id_key", "secret_onion_key_ntor", "ed25519_master_id_public_key"))

    @property
    def info(self) -> RouterInfo:
        """What a client needs of it, read from its key files."""
        keys = self.folder / "keys"
        rsa = load_pem_private_key((keys / "secret_id_key").read_bytes(), None)
        # 32 bytes of tag each; then the onion key's pair, or the identity.
        onion = (keys / "secret_onion_key_ntor").read_bytes()[32:]
        ed25519 = (keys / "ed25519_master_id_public_key").read_bytes()[32:]
        return RouterInfo(self.name, HOST, self.port, fingerprint(rsa.public_key()), ed25519,
                          onion[32:64])


class StockAuthority(Tor):
    """A directory authority that votes alone. `lines` are what its network's members need."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        super().__init__(folder, name, AUTHORITY)
        self.directory_port = free_port()
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        self._run("tor-gencert", "--create-identity-key", "--passphrase-fd", "0", "-m", "12",
                  "-a", f"{HOST}:{self.directory_port}",
                  "-i", str(keys / "authority_identity_key"),
                  "-s", str(keys / "authority_signing_key"),
                  "-c", str(keys / "authority_certificate"))
        found = re.search(r"^fingerprint (\w+)$", (keys / "authority_certificate").read_text(),
                          re.MULTILINE)
        assert found is not None
        self.v3_identity = bytes.fromhex(found[1])
        listed = self._run(
            "tor", "--quiet", "--list-fingerprint", "--orport", str(self.port), "--datadirectory",
            str(self.folder), "--nickname", name, "--dirserver", f"x {HOST}:1 {NOBODY}",
            "--ignore-missing-torrc", "-f", str(self.folder / "none"))
        own = listed.splitlines()[-1].split(" ", 1)[1].replace(" ", "")
        self.lines = (f"DirAuthority {name} orport={self.port} no-v2 v3ident={found[1]} "
                      f"{HOST}:{self.directory_port} {own}\n")
        self._settings += (f"ORPort {HOST}:{self.port}\nDirPort {HOST}:{self.directory_port}\n"
                           + self.lines)

    @staticmethod
    def _run(*command: str) -> str:
        done = subprocess.run(command, input="passphrase\n", capture_output=True, text=True,
                              timeout=PATIENCE)
        if done.returncode:
            raise TorError(f"{command[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def consensus(self) -> str:
        """The latest consensus, empty while there is none."""
        with contextlib.suppress(OSError), urllib.request.urlopen(
                f"http://{HOST}:{self.directory_port}/tor/status-vote/current/consensus",
                timeout=5) as answer:
            return zlib_or_plain(answer.read()).decode()
        return ""


def zlib_or_plain(data: bytes) -> bytes:
    return zlib.decompress(data) if data[:1] == b"\x78" else data


class StockClient(Tor):
    """A stock client. `socks_port` is where it takes SOCKS5."""

    def __init__(self, folder: Path, name: str, network: str, more: str = "") -> None:
        self.socks_port = free_port()
        super().__init__(folder, name, f"SocksPort {HOST}:{self.socks_port}\n"
                         "ConfluxEnabled 0\nUseEntryGuards 1\nPathsNeededToBuildCircuits 0.67\n"
                         f"{network}{more}")
        self.port = self.socks_port

    def bootstrapped(self) -> bool:
        return "Bootstrapped 100%" in self.log()

    async def connect(self, command: int, host: str, port: int
                      ) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """Speak SOCKS5: command 1 connects, 0xF0 is Tor's RESOLVE; the answer's address first.

        TorError with the reply code when the client refuses.
        """
        reader, writer = await asyncio.open_connection(HOST, self.socks_port)
        writer.write(b"\5\1\0")
        assert await reader.readexactly(2) == b"\5\0"
        name = host.encode()
        writer.write(bytes([5, command, 0, 3, len(name)]) + name + port.to_bytes(2, "big"))
        head = await reader.readexactly(4)
        if head[1]:
            writer.close()
            raise TorError(f"{self.name}: SOCKS says {head[1]}\n{self.log()[-1500:]}")
        address = await reader.readexactly({1: 4, 4: 16}[head[3]])
        await reader.readexactly(2)
        return address, reader, writer

    async def fetch(self, port: int) -> bytes:
        """A file of the server at that port, through a circuit of the client's own choice."""
        _, reader, writer = await self.connect(1, HOST, port)
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.0 200"), head[:200]
            return body
        finally:
            writer.close()


@contextlib.contextmanager
def running(*processes: Tor):
    """Start processes, wait until they listen, and end them by their ids."""
    try:
        for one in processes:
            one.start()
        for one in processes:
            one.wait(one.ready, "open port")
        yield
    finally:
        for one in processes:
            one.stop()


class FileServer:
    """Serves bytes over HTTP/1.0 to whoever connects: a file of `size` bytes, or an upload's
    digest. Inside the event loop that it is started in."""

    def __init__(self, size: int) -> None:
        block = hashlib.shake_256(size.to_bytes(8, "big")).digest(1 << 20)
        self._size, self._block = size, block
        whole, rest = divmod(size, len(block))
        digest = hashlib.sha256()
        for _ in range(whole):
            digest.update(block)
        digest.update(block[:rest])
        self.sha256 = digest.hexdigest()
        self.port = 0

    async def __aenter__(self) -> FileServer:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", request)
            if length is None:
                writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % self._size)
                left = self._size
                while left:
                    writer.write(self._block[:left])
                    left -= min(left, len(self._block))
                    await writer.drain()
            else:
                digest, left = hashlib.sha256(), int(length[1])
                while left and (part := await reader.read(min(left, 1 << 16))):
                    digest.update(part)
                    left -= len(part)
                writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + digest.hexdigest().encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the far end of a circuit has gone away
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def have_tor() -> bool:
    return shutil.which("tor") is not None
