# SPDX-License-Identifier: BSD-3-Clause
"""Cells on the wire: published cells, a recorded link, and runs of relay cells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from offchain.transport.cell import (
    BODY_LEN,
    CELL_LEN,
    MAX_RUN,
    CellParser,
    Command,
    encode_fixed,
    encode_run,
    encode_variable,
    is_variable,
)
from offchain.transport.errors import MessageTooLong


def test_sizes_are_those_of_tor_spec():
    assert (CELL_LEN, BODY_LEN) == (514, 509)


def test_published_cells(vectors):
    for case in vectors("link_cells")["cells"]:
        wire, body = bytes.fromhex(case["wire"]), bytes.fromhex(case["body"])
        parser = CellParser()
        parser.id_len = case["id_len"]
        parser.feed(wire)
        cell = parser.next_cell()
        assert (cell.circ_id, cell.command, cell.body) == (case["circ_id"], case["command"], body)
        assert parser.next_cell() is None
        if is_variable(case["command"]):
            assert encode_variable(case["circ_id"], case["command"], body,
                                   id_len=case["id_len"]) == wire
        elif case["id_len"] == 4:
            assert encode_fixed(case["circ_id"], case["command"], body.rstrip(b"\0")) == wire


def test_recorded_link_comes_apart_byte_by_byte(vectors):
    parser = CellParser()
    commands = []
    for byte in bytes.fromhex(vectors("link_cells")["recorded_link"]):
        parser.feed(bytes([byte]))
        while (cell := parser.next_cell()) is not None:
            commands.append(cell.command)
    assert commands == [Command.VERSIONS, Command.CERTS, Command.AUTH_CHALLENGE, Command.NETINFO]


_cell = st.one_of(
    st.tuples(st.sampled_from([1, 2, 0x80000001]), st.sampled_from([3, 9]),
              st.binary(min_size=BODY_LEN, max_size=BODY_LEN)),
    st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 4, 8, 13]),
              st.binary(min_size=BODY_LEN, max_size=BODY_LEN)),
    st.tuples(st.just(0), st.sampled_from([128, 200]), st.binary(max_size=40)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_cell, max_size=12), st.lists(st.integers(1, 1500), min_size=1, max_size=20))
def test_any_cells_in_any_pieces_come_out_in_order(cells, sizes):
    wire = b"".join(
        encode_variable(c, k, b) if is_variable(k) else encode_fixed(c, k, b) for c, k, b in cells)
    parser = CellParser()
    parser.id_len = 4
    out, at, turn = [], 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        parser.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
        for run in parser.drain():
            if is_variable(run.command):
                out.append((run.circ_id, run.command, run.body))
            else:
                out += [(run.circ_id, run.command, run.body[i : i + BODY_LEN])
                        for i in range(0, len(run.body), BODY_LEN)]
                assert len(run.body) == run.count * BODY_LEN
    assert out == cells


def test_relay_cells_come_in_runs_of_bounded_length():
    bodies = bytes(range(256)) * 509  # 256 bodies
    parser = CellParser()
    parser.id_len = 4
    parser.feed(encode_run(7, Command.RELAY, bodies[: 100 * BODY_LEN]))
    runs = parser.drain()
    assert [run.count for run in runs] == [MAX_RUN, MAX_RUN, MAX_RUN, 100 - 3 * MAX_RUN]
    assert b"".join(run.body for run in runs) == bodies[: 100 * BODY_LEN]


def test_run_equals_single_cells():
    bodies = bytes(3 * BODY_LEN)
    assert encode_run(9, 3, bodies) == 3 * encode_fixed(9, 3, b"")


def test_too_long_bodies_are_refused():
    with pytest.raises(MessageTooLong):
        encode_fixed(1, 3, bytes(BODY_LEN + 1))
    with pytest.raises(MessageTooLong):
        encode_variable(0, 129, bytes(0x10000))
