# SPDX-License-Identifier: AGPL-3.0-only
# pragma version 0.4.3
# pragma evm-version prague
# pragma nonreentrancy on
"""
@title The directory authorities' votes on the network parameters
@license GNU Affero General Public License v3.0 only
@notice Each authority votes a full set for the next epoch. With a quorum of votes the median of
        every parameter is taken; the set of medians is checked as a whole and applies from the
        next epoch on, or the old one stays. Amounts are in token base units, times in seconds,
        shares and factors (premium_share, alpha, beta) in ten-thousandths.
@custom:security A median taken per parameter can be invalid although every vote is valid, so the
        result is checked again. The epoch's length is fixed at deployment: epochs are counted
        from the Unix epoch, and another length would renumber them.
"""

from .interfaces import IConsensus

implements: IConsensus

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


COUNT: constant(uint256) = 19
MAX_AUTHORITIES: constant(uint256) = 16
BASIS: constant(uint256) = 10_000
_WORD: constant(uint256) = 2**32 - 1
# The first six parameters share a word with the epoch they apply from, in its upper 64 bits:
# what a channel pins then costs one storage read.
_FIRST: constant(uint256) = 6
_SINCE: constant(uint256) = 192

tax_rate_bp: public(immutable(uint256))
quorum: public(immutable(uint256))
epoch_length: public(immutable(uint256))

authorities: public(DynArray[address, MAX_AUTHORITIES])
_is_authority: HashMap[address, bool]
_votes: HashMap[uint256, HashMap[address, uint256[3]]]
# Agreed sets in the order of the epochs they apply from; only the last can lie in the future.
_sets: HashMap[uint256, uint256[3]]
_count: uint256


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
    assert (
        quorum_ * 2 > len(authorities_) and quorum_ <= len(authorities_)
    ), "consensus: quorum"
    assert tax_rate_bp_ <= BASIS, "consensus: tax rate"
    for authority: address in authorities_:
        assert (
            authority != empty(address) and not self._is_authority[authority]
        ), "consensus: authority"
        self._is_authority[authority] = True
    self.authorities = authorities_
    quorum = quorum_
    tax_rate_bp = tax_rate_bp_
    epoch_length = initial.epoch
    values: uint256[COUNT] = self._values(initial)
    assert self._is_valid(values, initial.epoch, tax_rate_bp_), "consensus: invalid parameters"
    since: uint256 = block.timestamp // initial.epoch
    self._sets[0] = self._pack(values, since)
    self._count = 1
    log ParametersAgreed(epoch=since, parameters=initial)


@external
def vote(epoch: uint256, parameters: Parameters):
    """
    @notice Casts or replaces the caller's vote on the set of the next epoch.
    """
    assert self._is_authority[msg.sender], "consensus: authorities only"
    assert epoch == self._current() + 1, "consensus: not the next epoch"
    values: uint256[COUNT] = self._values(parameters)
    assert self._is_valid(values, epoch_length, tax_rate_bp), "consensus: invalid parameters"
    self._votes[epoch][msg.sender] = self._pack(values, 1)
    log Voted(authority=msg.sender, epoch=epoch)
    self._tally(epoch)


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
    high: uint256 = self._count
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
    last: uint256 = self._count - 1
    word: uint256 = self._sets[last][0]
    if word >> _SINCE > self._current():
        word = self._sets[last - 1][0]
    return IConsensus.ChannelTerms(
        dispute_window=word & _WORD,
        close_notice=(word >> 32) & _WORD,
        close_bond=(word >> 64) & _WORD,
        price=(word >> 96) & _WORD,
        deposit_max=(word >> 128) & _WORD,
    )


@internal
@view
def _current() -> uint256:
    return block.timestamp // epoch_length


@internal
def _tally(epoch: uint256):
    """
    @notice Takes the medians of the votes cast so far on `epoch` and stores or withdraws them.
    """
    cast: DynArray[uint256[3], MAX_AUTHORITIES] = []
    for authority: address in self.authorities:
        ballot: uint256[3] = self._votes[epoch][authority]
        if ballot[0] != 0:
            cast.append(ballot)
    if len(cast) < quorum:
        return
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
        medians[lane] = sorted[(len(sorted) - 1) // 2]

    last: uint256 = self._count - 1
    pending: bool = self._sets[last][0] >> _SINCE == epoch and last > 0
    if self._is_valid(medians, epoch_length, tax_rate_bp):
        if not pending:
            last += 1
            self._count = last + 1
        self._sets[last] = self._pack(medians, epoch)
        log ParametersAgreed(epoch=epoch, parameters=self._parameters(medians))
    else:
        if pending:
            self._count = last
        log ParametersRejected(epoch=epoch)


@internal
@pure
def _is_valid(p: uint256[COUNT], length: uint256, rate: uint256) -> bool:
    """
    @notice The check of a whole set: the fee is positive, the dispute window at least four and
            the lifetime more than four safety margins, everything within its bounds.
    """
    for value: uint256 in p:
        if value > _WORD:
            return False
    s: Parameters = self._parameters(p)
    tax: uint256 = (s.delta_r * rate + BASIS - 1) // BASIS
    return (
        s.delta_r > 0
        and s.price > s.delta_r + tax
        and s.n >= 32
        and s.n <= 2**18
        and s.n & (s.n - 1) == 0
        and s.deposit_max < 2**31
        and s.n * s.price <= s.deposit_max
        and s.epoch == length
        and length > 0
        and s.safety_margin > 0
        and s.dispute_window >= 4 * s.safety_margin
        and s.lifetime > 4 * s.safety_margin
        and s.close_notice >= 4 * s.safety_margin
        and s.cells_per_payment > 0
        and s.premium_share <= BASIS
        and s.beta > 0
        and s.circuit_window > 0
        and s.stream_window > 0
    )


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
