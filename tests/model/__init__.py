# SPDX-License-Identifier: BSD-3-Clause
"""The protocol as a finite model, searched through to the end.

Two models are explored state by state, breadth first, until no move is left (`checker`):

- `session_model`: one session between one client C, one relay R and one intermediary I, with a
  channel each, from NanoSetupRequest to the last payout: Setup, Establish, Pay (n = 2), both
  closes, cash-out, and on the ledger refund, nano_refund, reveal, refute, resolve, close,
  request_close.
- `pay_model`: one hidden payment from a client's wallet to another, with its conditional token,
  void, and the same ledger.

**Who plays.** For every coalition that leaves somebody honest, the coalition pools what it knows
and makes any move at any time, or none. Honest parties make the moves of their machines, in any
order that these allow; they may also give up and post their live claim whenever they like, which
covers every silence, loss and delay of messages. What an honest party must have done by a moment
(I has refuted and revealed before a deadline, R's count and the payee's conditional token are on
the ledger when T_exp or T_p comes, I has looked at the ledger within a stage) is done before time
moves on.

**What is abstract.** A token, secret or preimage is a symbol that somebody holds or does not:
proofs cannot be forged, tokens say what they say, and every honest check succeeds or fails as it
should. Time has four stages around T_exp (or T_p), cut at two margins, one margin and the instant
itself. A deadline of a claim passes at any time that its posting allows: Δ is at least four
margins, so a claim posted within two margins of T_exp outlives it. With `lag`, I sees the ledger
late, by up to a stage. Amounts are per payment: price 10 = 7 for R + 1 tax + 2 fee.

**What must hold** (`wrong`, at the end of every play): C has what it had less the price of each
payment that it sent, R at least δ_R for each that it accepted, I its deposits and a fee for every
payment that R is paid for; in a hidden payment C and E together lose no more than the fee, and I
earns it. A live wallet token of the coalition counts as money that I owes, for a hidden payment
moves it anywhere. No channel is paid twice. Every state without a move is an end; in the small
models an end can also be reached from every state, so nobody is stuck out of sight.

**What it proves.** In these bounds no play of any coalition breaks a floor. `test_weakenings` shows
that the search sees losses: each rule that the models know is left out once, and somebody loses.
Four rules lose nothing here when one alone is left out, and are tested as such: the checks of a
relay's old wallet in Establish (that it is revoked, that it is not on the ledger), because what a
relay held before is never worth more than what it holds after; the last moment for Establish,
because a relay that joins late can close only at what the ledger knows; and the payee's posted
wallet at the joining of a hidden payment, because PayeeReveal refuses it.

**What ties it to the code.** `session_replay` and `pay_replay` play moves of the models on the real
machines, the real ledger and real cryptography, for every coalition; what both share is `play`.
After each move they compare the phases of the honest users, I's record of the session or of the two
legs, its revoked secrets, its view of the ledger, k_C and k_R, and the channels' status; at the end
all accounts, to the unit. Plays are written ones, random walks, a shortest way to every move that
these left out, and the longest shortest plays (`walks`, `test_replay`, `test_pay_replay`); payments
also with everybody honest killed after every move. A dishonest I has its keys and keeps no rule
(`lawless`): what it was told is compared instead of its records. `test_losses` and
`test_pay_losses` take eighteen rules out of the real machines or contracts and play the model's
loss: somebody honest really loses, and with the rule the play is stopped where the model says.

**What it does not prove.** One session, one channel of each role, two payments: nothing about
several sessions that share a lock, a nonce, an nT or a hash chain, nor about a second session of a
wallet. No old backups, no opening of groups, no guard channels, no tax beyond one unit per payment,
no escrow caps, no gas and bonds, no anonymity. Crashes are replayed in payments only, a late I in
no play, and no model has a dishonest I that asks an honest payer or payee to close. Outside both
models, since they are about algebra or the ledger's arithmetic: the role of a close taken from a
sign, Ỹ0 in a request, a tax rate by session, a second registration of I's key.
`tests/protocol/test_weakenings` leaves these and all the others out of the real code, and
`tests/protocol/test_balance_game` plays every coalition on it.
"""
