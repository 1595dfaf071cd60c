# SPDX-License-Identifier: BSD-3-Clause
"""The windows of premium circuits: their sizes, and that they change without losing anything."""

from __future__ import annotations

import hashlib
from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monetor_chain.parameters import DEFAULT, DEMO
from offchain.transport import flow_control as flow
from offchain.transport.edge import Edge
from offchain.transport.errors import ProtocolViolation
from offchain.transport.priority import EVEN, ONE, Priority, Windows, scaled
from offchain.transport.relay_cell import MAX_DATA, RelayCommand, decode_body
from offchain.transport.scheduler import Discipline

PAPER = Priority(share=2_500, alpha=5_000, beta=50_000)


# --- sizes


@pytest.mark.parametrize(("share", "alpha", "premium", "others"), [
    (2_500, 5_000, (2500, 1250), (500, 250)),
    (2_500, 2_500, (1750, 875), (750, 375)),
    (5_000, 5_000, (1500, 750), (500, 250)),
    (5_000, 2_500, (1250, 625), (750, 375)),
    (2_500, 0, (1000, 500), (1000, 500)),
    (ONE, 5_000, (1000, 500), (500, 250)),
    (2_500, 9_000, (3700, 1850), (100, 50)),
    (2_500, 9_500, (3850, 1925), (100, 50)),
])
def test_sizes_follow_equation_2(share, alpha, premium, others):
    priority = Priority(share=share, alpha=alpha)
    assert priority.windows(premium=True) == Windows(*premium)
    assert priority.windows(premium=False) == Windows(*others)


@given(window=st.integers(100, 20_000), share=st.integers(1, ONE), alpha=st.integers(0, ONE - 1))
def test_sizes_are_whole_and_never_below_an_increment(window, share, alpha):
    sizes = {}
    for premium in (True, False):
        a, p = Fraction(alpha, ONE), Fraction(share, ONE)
        exact = window * (1 + a * (premium / p - 1))
        size = scaled(window, 100, premium=premium, share=share, alpha=alpha)
        assert size == max(100, exact.__floor__())
        sizes[premium] = size
    # With a share p of premium circuits, all windows together are what they were.
    mean = (sizes[True] * share + sizes[False] * (ONE - share)) / ONE
    assert window - 1 <= mean <= window + 100


def test_constants_out_of_range_are_refused():
    for wrong in ({"share": 0}, {"share": ONE + 1}, {"alpha": -1}, {"alpha": ONE},
                  {"beta": ONE - 1}, {"circuit_window": 99}, {"stream_window": 49}):
        with pytest.raises(ValueError, match="priority"):
            Priority(**wrong)


def test_without_alpha_everybody_has_tors_windows():
    for premium in (True, False):
        assert EVEN.windows(premium=premium) == EVEN.limits(premium=premium) == Windows(1000, 500)


def test_a_peer_with_tors_windows_is_no_offender():
    """A stock client or exit uses 1000/500, whatever our own windows are."""
    assert PAPER.limits(premium=False) == Windows(1000, 500)
    assert PAPER.limits(premium=True) == Windows(2500, 1250)


def test_the_voted_constants_make_the_windows_of_the_paper():
    voted = Priority(DEFAULT.circuit_window, DEFAULT.stream_window, DEFAULT.premium_share,
                     DEFAULT.alpha, DEFAULT.beta)
    assert voted == PAPER and voted.ratio == 5


@pytest.mark.parametrize("parameters", [DEFAULT, DEMO])
def test_the_credit_of_a_circuit_exceeds_a_premium_window(parameters):
    """An exit has sent up to a window more than what its client has seen and paid for."""
    window = Priority(parameters.circuit_window, parameters.stream_window,
                      parameters.premium_share, parameters.alpha).windows(premium=True).circuit
    assert parameters.initial_credit > window


# --- one window


def test_a_smaller_window_waits_for_what_is_in_flight():
    window = flow.PackageWindow(2500, 100)
    for _ in range(2000):
        window.take()
    window.resize(500)
    assert window.available == -1500
    with pytest.raises(ValueError):
        window.take()
    for _ in range(15):
        window.credit()
    assert window.available == 0
    window.credit()
    assert window.available == 100
    with pytest.raises(ValueError):
        window.resize(99)


def test_one_window_of_the_old_size_is_tolerated_and_no_more():
    window = flow.DeliverWindow(1000, 100)
    window.allow(2500)
    window.allow(500)
    for _ in range(2500):
        window.received()
    with pytest.raises(ProtocolViolation):
        window.received()


# --- two edges


class End:
    """One edge with its half of a path that keeps the order: relay messages, as they are."""

    def __init__(self, priority):
        self.sent = deque()  # messages on their way to the other end
        self.seal_hash, self.open_hash = hashlib.sha1(), hashlib.sha1()
        self.edge = Edge(self, priority)
        self.sinks = {}
        self.blocked = False

    def seal(self, body):
        self.seal_hash.update(body)
        return body

    def sealed_tag(self):
        return self.seal_hash.digest()

    def ship(self, bodies):
        self.sent.extend(bodies)

    def ship_blocked(self):
        return self.blocked

    def open(self, number):
        sink = self.sinks[number] = Sink()
        sink.stream = self.edge.open(number, sink)

    def take(self, body):
        if callable(body):
            body()
            return
        self.open_hash.update(body)
        message = decode_body(body)
        if message.command == RelayCommand.DATA:
            self.edge.data_received(message.stream_id, message.data, self.open_hash.digest())
        else:
            assert message.command == RelayCommand.SENDME
            self.edge.sendme_received(message.stream_id, message.data)


class Sink:
    def __init__(self):
        self.got, self.said = 0, 0

    def data(self, data):
        self.got += len(data)

    def writable(self):
        pass


class Edges(RuleBasedStateMachine):
    """Data, SENDMEs, promotions and demotions in any order over a path of any delay.

    The three steps of a promotion travel on the same path as the cells. Either end may lower its
    windows at any time without a word. No step may raise: there is nobody here who breaks a rule.
    """

    def __init__(self):
        super().__init__()
        self.client, self.exit = End(PAPER), End(PAPER)
        self.ends = self.client, self.exit
        for number in (1, 2):
            for end in self.ends:
                end.open(number)

    @rule(side=st.booleans(), number=st.sampled_from([1, 2]),
          cells=st.sampled_from([1, 49, 50, 333, 1300, 4000]))
    def say(self, side, number, cells):
        sink = self.ends[side].sinks[number]
        sink.said += cells * MAX_DATA
        sink.stream.send(bytes(cells * MAX_DATA))

    @rule(side=st.booleans(), count=st.sampled_from([1, 10, 99, 500, 3000]))
    def deliver(self, side, count):
        source, target = self.ends[side], self.ends[not side]
        for _ in range(min(count, len(source.sent))):
            target.take(source.sent.popleft())

    @rule(side=st.booleans(), number=st.sampled_from([1, 2]))
    def pause(self, side, number):
        self.ends[side].sinks[number].stream.pause()

    @rule(side=st.booleans(), number=st.sampled_from([1, 2]))
    def resume(self, side, number):
        self.ends[side].sinks[number].stream.resume()

    @rule()
    def promote(self):
        """The exit allows and says so; the client allows, uses, and answers; the exit uses."""
        def accepted():
            self.client.edge.allow_premium()
            self.client.edge.use_premium(True)
            self.client.sent.append(lambda: self.exit.edge.use_premium(True))

        self.exit.edge.allow_premium()
        self.exit.sent.append(accepted)

    @rule(side=st.booleans())
    def demote(self, side):
        self.ends[side].edge.use_premium(False)

    @rule(side=st.booleans(), blocked=st.booleans())
    def block(self, side, blocked):
        self.ends[side].blocked = blocked
        if not blocked:
            self.ends[side].edge.pump()

    @precondition(lambda self: len(self.client.sinks) < 4)
    @rule(number=st.sampled_from([3, 4]))
    def open(self, number):
        if number not in self.client.sinks:
            for end in self.ends:
                end.open(number)

    @invariant()
    def nothing_is_sent_beyond_the_window(self):
        for end in self.ends:
            assert end.edge.package.in_flight <= 2500

    def teardown(self):
        """When every reader reads and every link moves, all bytes arrive."""
        for end in self.ends:
            end.blocked = False
            for sink in end.sinks.values():
                sink.stream.resume()
        for end in self.ends:
            end.edge.pump()
        while self.client.sent or self.exit.sent:
            self.deliver(False, 1000)
            self.deliver(True, 1000)
        for end, other in (self.ends, self.ends[::-1]):
            for number, sink in end.sinks.items():
                assert sink.stream.pending == 0
                assert other.sinks[number].got == sink.said


TestEdges = Edges.TestCase
TestEdges.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def burst(sender, receiver, cells):
    sender.sinks[1].stream.send(bytes(cells * MAX_DATA))
    while sender.sent:
        receiver.take(sender.sent.popleft())


def pair():
    client, exit_ = End(PAPER), End(PAPER)
    for end in (client, exit_):
        end.open(1)
    return client, exit_


def test_what_is_in_flight_follows_the_class():
    client, exit_ = pair()
    client.sinks[1].stream.pause()
    burst(exit_, client, 5000)
    assert client.sinks[1].got == 250 * MAX_DATA
    client.edge.allow_premium()
    exit_.edge.use_premium(True)
    burst(exit_, client, 1)
    assert client.sinks[1].got == 1250 * MAX_DATA
    exit_.edge.use_premium(False)
    client.sinks[1].stream.resume()
    while client.sent or exit_.sent:
        for source, target in ((client, exit_), (exit_, client)):
            while source.sent:
                target.take(source.sent.popleft())
    assert client.sinks[1].got == 5001 * MAX_DATA
    assert exit_.edge.package.size == 500 and exit_.sinks[1].stream.package.size == 250


def test_who_packages_by_a_window_that_was_not_allowed_overruns():
    """The order of a promotion matters: this is the one who does not wait for the other end."""
    client, exit_ = pair()
    client.sinks[1].stream.pause()
    exit_.edge.use_premium(True)
    with pytest.raises(ProtocolViolation, match="window"):
        burst(exit_, client, 501)


def test_a_stock_exit_fills_its_own_window():
    client, exit_ = End(PAPER), End(EVEN)
    for end in (client, exit_):
        end.open(1)
    client.sinks[1].stream.pause()
    burst(exit_, client, 700)
    assert client.sinks[1].got == 500 * MAX_DATA


def test_what_is_allowed_holds_for_the_circuit_and_for_streams_to_come():
    client, exit_ = pair()
    client.edge.allow_premium()
    assert client.edge.deliver.limit == 2500
    exit_.edge.use_premium(True)
    for end in (client, exit_):
        end.open(2)
    client.sinks[2].stream.pause()
    exit_.sinks[2].stream.send(bytes(1251 * MAX_DATA))
    while exit_.sent:
        client.take(exit_.sent.popleft())
    assert client.sinks[2].got == 1250 * MAX_DATA


def test_after_a_demotion_one_old_window_is_tolerated():
    client, exit_ = pair()
    client.sinks[1].stream.pause()
    client.edge.allow_premium()
    client.edge.use_premium(True)
    exit_.edge.use_premium(True)
    client.edge.use_premium(False)  # the exit does not know yet
    burst(exit_, client, 1250)
    exit_.sinks[1].stream.package.resize(1251)
    with pytest.raises(ProtocolViolation, match="window"):
        burst(exit_, client, 1)


def test_digests_stay_right_across_changes_of_the_windows():
    """The marked cells are every hundredth of the circuit's life, whatever its windows are."""
    client, exit_ = pair()
    client.edge.allow_premium()
    for premium in (True, False, True):
        exit_.edge.use_premium(premium)
        burst(exit_, client, 130)
    sendmes = [body for body in client.sent if decode_body(body).stream_id == 0]
    assert len(sendmes) == 3
    forged = decode_body(sendmes[0]).data[:-1] + b"\0"
    exit_.take(sendmes[0])
    with pytest.raises(ProtocolViolation, match="digest"):
        exit_.edge.sendme_received(0, forged)


# --- circuits


def test_a_circuit_is_promoted_and_demoted_while_data_flows(rig, sink):
    rig.network.priority = PAPER
    core = rig.circuit()
    back = rig.at(2)
    rig.routers[2].services[80] = lambda data: bytes(MAX_DATA * 2000)
    end = sink()
    stream = core.open_stream("127.0.0.1", 80, end)
    rig.run()
    stream.pause()
    stream.send(b"go")
    rig.run()
    assert len(end.got) == 250 * MAX_DATA
    back.edge.allow_premium()
    core.edge.allow_premium()
    core.edge.use_premium(True)
    back.edge.use_premium(True)
    rig.run()
    assert len(end.got) == 1250 * MAX_DATA
    back.edge.use_premium(False)
    stream.resume()
    rig.run()
    assert len(end.got) == 2000 * MAX_DATA and not core.closed


@pytest.mark.parametrize("hop", [1, 2])
def test_a_premium_circuit_is_served_first_at_every_hop_that_knows_it(rig, sink, hop):
    """Both directions of both links: here the one towards the client, which is held back."""
    for number, router in enumerate(rig.routers):
        router.scheduling.discipline = Discipline.STRICT if number == hop else Discipline.FIFO
    rig.routers[2].services[80] = lambda data: b""
    arrived = []
    circuits = [rig.circuit(), rig.circuit()]
    for number, core in enumerate(circuits):
        end = sink()
        end.data = lambda data, number=number: arrived.append(number)
        core.open_stream("127.0.0.1", 80, end)
    rig.run()
    held = rig.network.links[hop]  # towards the hop before
    held.held = True
    for core in circuits:
        rig.circuit_at(2, core).edge.get(1).send(bytes(MAX_DATA * 100))
    rig.run()
    last = rig.circuit_at(hop, circuits[1])
    last.premium = True
    last.premium = True
    held.held = False
    rig.run()
    assert arrived == [1] * 100 + [0] * 100


def test_forward_cells_are_served_by_class_too(rig):
    rig.routers[0].scheduling.discipline = Discipline.STRICT
    one, two = rig.circuit(), rig.circuit()
    held = rig.network.links[1]
    held.held = True
    for core in (one, two):
        for _ in range(5):
            core.send_payment(2, core is two, b"x")
    rig.run()
    rig.circuit_at(0, two).premium = True
    held.held = False
    rig.run()
    assert [pcmd for pcmd, _, _ in rig.hooks[2].payments] == [1] * 5 + [0] * 5
