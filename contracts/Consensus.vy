# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The directory authorities' votes on the network parameters
@license GNU Affero General Public License v3.0 only
@notice Each authority votes a full set for the next epoch. With a quorum of votes the median of
        every parameter is taken over all authorities, where whoever is silent counts as voting
        for the set in force, and moves only as far as a quorum goes; the set of medians is
        checked as a whole and applies from the next epoch on, or the old one stays. Amounts are
        in token base units, times in seconds, shares and factors (premium_share, alpha, beta) in
        ten-thousandths.
        A quorum also changes the set of authorities and pauses openings of channels.
@custom:security A median taken per parameter can be invalid although every vote is valid, so the
        result is checked again. Without the silent ones' votes for the set in force, one
        authority of a bare quorum would decide every median; with the lower of two middle votes,
        half of an even number would. The epoch's length is fixed at deployment: epochs are
        counted from the Unix epoch, and another length would renumber them.
"""

from .interfaces import IConsensus
from .modules import approvals

implements: IConsensus
initializes: approvals

struct Parameters:
    dispute_window: uint256
    close_notice: uint256
    close_bond: uint256
    price: uint256
    deposit_max: uint256
    delta_r: uint256
    pay_fee: uint256
    n: uint256
    cells_per_payment: uint256
    initial_credit: uint256
    epoch: uint256
    lifetime: uint256
    safety_margin: uint256
    setup_pause: uint256
    premium_share: uint256
    alpha: uint256
    beta: uint256
    circuit_window: uint256
    stream_window: uint256


event Voted:
    authority: indexed(address)
    epoch: indexed(uint256)


event ParametersAgreed:
    epoch: indexed(uint256)
    parameters: Parameters


event ParametersRejected:
    epoch: indexed(uint256)
    reason: String[40]


event AuthoritiesChanged:
    set_number: indexed(uint256)
    authorities: DynArray[address, MAX_AUTHORITIES]
    quorum: uint256


event AuthoritiesApproved:
    authority: indexed(address)
    authorities: DynArray[address, MAX_AUTHORITIES]
    quorum: uint256


event PauseApproved:
    authority: indexed(address)
    paused: bool


event PauseChanged:
    paused: bool


COUNT: constant(uint256) = 19
MAX_AUTHORITIES: constant(uint256) = 16
BASIS: constant(uint256) = 10_000
_WORD: constant(uint256) = 2**32 - 1
# Bounds of single parameters. Windows that users pin for life must stay bearable whatever a quorum
# votes; windows of cells never fall below the increments that Tor acknowledges (tor-spec, flow
# control).
_MAX_WINDOW: constant(uint256) = 90 * 86_400
_MAX_NOTICE: constant(uint256) = 366 * 86_400
_MAX_ALPHA: constant(uint256) = 9_000
_MIN_CIRCUIT_WINDOW: constant(uint256) = 100
_MIN_STREAM_WINDOW: constant(uint256) = 50
# The first six parameters share a word with the epoch they apply from, in its upper 64 bits:
# what a channel pins then costs one storage read.
_FIRST: constant(uint256) = 6
_SINCE: constant(uint256) = 192

_PAUSED: constant(uint256) = 1 << 255

tax_rate_bp: public(immutable(uint256))
epoch_length: public(immutable(uint256))

quorum: public(uint256)
set_number: public(uint256)
_authorities: DynArray[address, MAX_AUTHORITIES]
# Set number -> authority -> its place in the set, from 1.
_seats: HashMap[uint256, HashMap[address, uint256]]
_votes: HashMap[uint256, HashMap[address, uint256[3]]]
# Agreed sets in the order of the epochs they apply from; only the last can lie in the future.
_sets: HashMap[uint256, uint256[3]]
# Number of agreed sets | paused << 255: what an opening asks costs one storage read less.
_head: uint256
_pause_count: uint256


@deploy
def __init__(
    authorities_: DynArray[address, MAX_AUTHORITIES],
    quorum_: uint256,
    tax_rate_bp_: uint256,
    initial: Parameters,
):
    """
    @param quorum_ Votes needed for a new set, more than half of the authorities.
    @param initial The set in force from the epoch of the deployment.
    """
    assert tax_rate_bp_ <= BASIS, "consensus: tax rate"
    tax_rate_bp = tax_rate_bp_
    epoch_length = initial.epoch
    values: uint256[COUNT] = self._values(initial)
    problem: String[40] = self._problem(values, initial.epoch, tax_rate_bp_)
    assert len(problem) == 0, problem
    since: uint256 = block.timestamp // initial.epoch
    self._sets[0] = self._pack(values, since)
    self._head = 1
    self._seat(authorities_, quorum_)
    log ParametersAgreed(epoch=since, parameters=initial)


@external
def vote(epoch: uint256, parameters: Parameters):
    """
    @notice Casts or replaces the caller's vote on the set of the next epoch.
    """
    assert self._seats[self.set_number][msg.sender] != 0, "consensus: authorities only"
    assert epoch == self._current() + 1, "consensus: not the next epoch"
    values: uint256[COUNT] = self._values(parameters)
    problem: String[40] = self._problem(values, epoch_length, tax_rate_bp)
    assert len(problem) == 0, problem
    self._votes[epoch][msg.sender] = self._pack(values, 1)
    log Voted(authority=msg.sender, epoch=epoch)
    self._tally(epoch)


@external
def change_authorities(authorities_: DynArray[address, MAX_AUTHORITIES], quorum_: uint256):
    """
    @notice Approves another set of authorities; with the quorum's last approval it takes office.
            Members who stay keep their votes on the next epoch's parameters; a set that was
            agreed on stays only if these agree on it.
    """
    decision: bytes32 = keccak256(abi_encode("authorities", authorities_, quorum_))
    log AuthoritiesApproved(authority=msg.sender, authorities=authorities_, quorum=quorum_)
    if approvals._approve(self._standing(msg.sender), decision):
        self._seat(authorities_, quorum_)
        self._tally(self._current() + 1)


@external
def set_paused(paused_: bool):
    """
    @notice Approves that openings of channels stop, or go on; the quorum's last approval decides.
            Nothing that ends a channel, or pays anybody out, can be paused.
    """
    assert paused_ != self._paused(), "consensus: no change"
    decision: bytes32 = keccak256(abi_encode("pause", paused_, self._pause_count))
    log PauseApproved(authority=msg.sender, paused=paused_)
    if approvals._approve(self._standing(msg.sender), decision):
        self._pause_count += 1
        self._head ^= _PAUSED
        log PauseChanged(paused=paused_)


@external
@view
def authorities() -> DynArray[address, MAX_AUTHORITIES]:
    """
    @return The accounts that may vote, in the order of their seats.
    """
    return self._authorities


@external
@view
def standing(account: address) -> IConsensus.Standing:
    return self._standing(account)


@external
@view
def paused() -> bool:
    """
    @return Whether openings of channels are paused.
    """
    return self._paused()


@external
@view
def current_epoch() -> uint256:
    return self._current()


@external
@view
def parameters(epoch: uint256) -> Parameters:
    """
    @return The set in force in `epoch`; that of a future epoch can still change.
    """
    low: uint256 = 0
    high: uint256 = self._count()
    assert epoch >= self._sets[0][0] >> _SINCE, "consensus: before the first epoch"
    for i: uint256 in range(64):
        if high - low == 1:
            break
        middle: uint256 = (low + high) // 2
        if self._sets[middle][0] >> _SINCE <= epoch:
            low = middle
        else:
            high = middle
    return self._parameters(self._unpack(self._sets[low]))


@external
@view
def channel_terms() -> IConsensus.ChannelTerms:
    """
    @return What a channel that is opened now pins.
    """
    head: uint256 = self._head
    last: uint256 = (head & ~_PAUSED) - 1
    word: uint256 = self._sets[last][0]
    if word >> _SINCE > self._current():
        word = self._sets[last - 1][0]
    return IConsensus.ChannelTerms(
        dispute_window=word & _WORD,
        close_notice=(word >> 32) & _WORD,
        close_bond=(word >> 64) & _WORD,
        price=(word >> 96) & _WORD,
        deposit_max=(word >> 128) & _WORD,
        paused=head & _PAUSED != 0,
    )


@internal
@view
def _current() -> uint256:
    return block.timestamp // epoch_length


@internal
@view
def _count() -> uint256:
    return self._head & ~_PAUSED


@internal
@view
def _paused() -> bool:
    return self._head & _PAUSED != 0


@internal
@view
def _standing(account: address) -> IConsensus.Standing:
    return IConsensus.Standing(
        seat=self._seats[self.set_number][account],
        quorum=self.quorum,
        set_number=self.set_number,
        epoch=self._current(),
    )


@internal
def _seat(members: DynArray[address, MAX_AUTHORITIES], quorum_: uint256):
    """
    @notice Puts a set of authorities into office.
    """
    assert quorum_ * 2 > len(members) and quorum_ <= len(members), "consensus: quorum"
    number: uint256 = self.set_number + 1
    seat: uint256 = 0
    for member: address in members:
        assert (
            member != empty(address) and self._seats[number][member] == 0
        ), "consensus: authority"
        seat += 1
        self._seats[number][member] = seat
    self.set_number = number
    self._authorities = members
    self.quorum = quorum_
    log AuthoritiesChanged(set_number=number, authorities=members, quorum=quorum_)


@internal
def _tally(epoch: uint256):
    """
    @notice Takes the medians of the votes cast so far on `epoch` and stores or withdraws them.
    """
    quorum: uint256 = self.quorum
    last: uint256 = self._count() - 1
    pending: bool = self._sets[last][0] >> _SINCE == epoch
    in_force: uint256[3] = self._sets[last - 1 if pending else last]
    cast: DynArray[uint256[3], MAX_AUTHORITIES] = []
    votes: uint256 = 0
    for authority: address in self._authorities:
        ballot: uint256[3] = self._votes[epoch][authority]
        if ballot[0] == 0:
            ballot = in_force
        else:
            votes += 1
        cast.append(ballot)
    if votes < quorum and not pending:
        return
    medians: uint256[COUNT] = empty(uint256[COUNT])
    problem: String[40] = "consensus: too few votes"
    if votes >= quorum:
        medians = self._medians(cast, in_force, quorum)
        problem = self._problem(medians, epoch_length, tax_rate_bp)
    if len(problem) == 0:
        if not pending:
            last += 1
            self._head += 1
        self._sets[last] = self._pack(medians, epoch)
        log ParametersAgreed(epoch=epoch, parameters=self._parameters(medians))
    else:
        if pending:
            self._head -= 1
        log ParametersRejected(epoch=epoch, reason=problem)


@internal
@pure
def _medians(
    cast: DynArray[uint256[3], MAX_AUTHORITIES], in_force: uint256[3], quorum: uint256
) -> uint256[COUNT]:
    """
    @notice Takes each parameter's median, held back to the value in force where no quorum goes as
            far.
    @param cast One ballot for each authority.
    """
    medians: uint256[COUNT] = empty(uint256[COUNT])
    for lane: uint256 in range(COUNT):
        sorted: DynArray[uint256, MAX_AUTHORITIES] = []
        for ballot: uint256[3] in cast:
            value: uint256 = self._lane(ballot, lane)
            sorted.append(value)
            position: uint256 = len(sorted) - 1
            for i: uint256 in range(MAX_AUTHORITIES):
                if position == 0 or sorted[position - 1] <= value:
                    break
                sorted[position] = sorted[position - 1]
                position -= 1
            sorted[position] = value
        # With a bare majority of an odd number both are the median. Otherwise the value in force
        # stays if it lies between them: no quorum wants less, and none wants more.
        low: uint256 = sorted[len(sorted) - quorum]
        high: uint256 = sorted[quorum - 1]
        medians[lane] = max(low, min(high, self._lane(in_force, lane)))
    return medians


@internal
@pure
def _problem(p: uint256[COUNT], length: uint256, rate: uint256) -> String[40]:
    """
    @notice The check of a whole set.
    @return The first rule that it breaks, empty if it may come into force.
    """
    for value: uint256 in p:
        if value > _WORD:
            return "consensus: a value reaches 2^32"
    s: Parameters = self._parameters(p)
    tax: uint256 = (s.delta_r * rate + BASIS - 1) // BASIS
    if s.delta_r == 0:
        return "consensus: delta_r"
    if s.price <= s.delta_r + tax:
        return "consensus: no fee is left of the price"
    if s.n < 32 or s.n > 2**18 or s.n & (s.n - 1) != 0:
        return "consensus: n"
    if s.deposit_max >= 2**31 or s.n * s.price > s.deposit_max:
        return "consensus: deposit_max"
    if s.epoch != length or length == 0:
        return "consensus: epoch"
    if s.safety_margin == 0:
        return "consensus: safety_margin"
    if s.dispute_window < 4 * s.safety_margin or s.dispute_window > _MAX_WINDOW:
        return "consensus: dispute_window"
    if s.lifetime <= 4 * s.safety_margin or s.lifetime > _MAX_WINDOW:
        return "consensus: lifetime"
    # Whoever answers a request must not have less time than whoever disputes an answer.
    if s.close_notice < s.dispute_window or s.close_notice > _MAX_NOTICE:
        return "consensus: close_notice"
    if s.cells_per_payment == 0:
        return "consensus: cells_per_payment"
    if s.premium_share == 0 or s.premium_share > BASIS:
        return "consensus: premium_share"
    if s.alpha > _MAX_ALPHA:
        return "consensus: alpha"
    if s.beta < BASIS:
        return "consensus: beta"
    if s.circuit_window < _MIN_CIRCUIT_WINDOW:
        return "consensus: circuit_window"
    if s.stream_window < _MIN_STREAM_WINDOW:
        return "consensus: stream_window"
    return ""


@internal
@pure
def _values(p: Parameters) -> uint256[COUNT]:
    return [
        p.dispute_window,
        p.close_notice,
        p.close_bond,
        p.price,
        p.deposit_max,
        p.delta_r,
        p.pay_fee,
        p.n,
        p.cells_per_payment,
        p.initial_credit,
        p.epoch,
        p.lifetime,
        p.safety_margin,
        p.setup_pause,
        p.premium_share,
        p.alpha,
        p.beta,
        p.circuit_window,
        p.stream_window,
    ]


@internal
@pure
def _parameters(v: uint256[COUNT]) -> Parameters:
    return Parameters(
        dispute_window=v[0],
        close_notice=v[1],
        close_bond=v[2],
        price=v[3],
        deposit_max=v[4],
        delta_r=v[5],
        pay_fee=v[6],
        n=v[7],
        cells_per_payment=v[8],
        initial_credit=v[9],
        epoch=v[10],
        lifetime=v[11],
        safety_margin=v[12],
        setup_pause=v[13],
        premium_share=v[14],
        alpha=v[15],
        beta=v[16],
        circuit_window=v[17],
        stream_window=v[18],
    )


@internal
@pure
def _place(lane: uint256) -> uint256:
    """
    @return Where a parameter lies, in units of 32 bits; places 6 and 7 hold the epoch.
    """
    return lane if lane < _FIRST else lane + 2


@internal
@pure
def _pack(values: uint256[COUNT], since: uint256) -> uint256[3]:
    words: uint256[3] = empty(uint256[3])
    for lane: uint256 in range(COUNT):
        place: uint256 = self._place(lane)
        words[place // 8] |= values[lane] << (32 * (place % 8))
    words[0] |= since << _SINCE
    return words


@internal
@pure
def _lane(words: uint256[3], lane: uint256) -> uint256:
    place: uint256 = self._place(lane)
    return (words[place // 8] >> (32 * (place % 8))) & _WORD


@internal
@pure
def _unpack(words: uint256[3]) -> uint256[COUNT]:
    values: uint256[COUNT] = empty(uint256[COUNT])
    for lane: uint256 in range(COUNT):
        values[lane] = self._lane(words, lane)
    return values
