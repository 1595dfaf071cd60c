# SPDX-License-Identifier: BSD-3-Clause
"""Which process is at the other end of a connection on loopback, as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path

ESTABLISHED, LISTENING = "01", "0A"


def _connections():
    """(local port, remote port, state, inode) of every IPv4 socket."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(one.rpartition(":")[2], 16) for one in fields[1:3])
        yield local, remote, fields[3], fields[9]


def _inodes(pid):
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # it has just ended, or closed the file
    return found


def peers(pid, among):
    """The processes of `among` that have connected to a port on which `pid` listens."""
    connections = list(_connections())
    own = _inodes(pid)
    ports = {local for local, _, state, inode in connections
             if state == LISTENING and inode in own}
    inodes = {inode for _, remote, state, inode in connections
              if state == ESTABLISHED and remote in ports}
    return {one for one in among if one != pid and inodes & _inodes(one)}
