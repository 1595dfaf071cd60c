# SPDX-License-Identifier: BSD-3-Clause
"""SOCKS5 by the letter of RFC 1928 and 1929, and Tor's use of the user name and password."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from offchain.transport.errors import EndReason
from offchain.transport.socks import (
    Isolation,
    SocksConversation,
    SocksError,
    SocksReply,
    encode_reply,
)

GREETING = b"\x05\x01\x00"
WITH_PASSWORD = b"\x05\x02\x00\x02"
EXAMPLE = b"\x05\x01\x00\x03\x0bexample.com\x00\x50"


def credentials(name, password):
    return bytes([1, len(name)]) + name + bytes([len(password)]) + password


def talk(*said):
    conversation = SocksConversation()
    return conversation, [conversation.receive(one) for one in said]


def refused(*said):
    with pytest.raises(SocksError) as caught:
        talk(*said)
    return caught.value


def test_a_name_goes_on_as_it_is():
    conversation, answers = talk(GREETING, EXAMPLE)
    assert answers == [b"\x05\x00", b""]
    assert (conversation.request.host, conversation.request.port) == ("example.com", 80)
    assert conversation.request.isolation == Isolation()


@pytest.mark.parametrize(("kind", "raw", "host"), [
    (1, bytes([127, 0, 0, 1]), "127.0.0.1"),
    (4, bytes(15) + b"\x01", "::1"),
    (3, b"\x05[::1]", "::1"),
    (3, b"\x0910.0.0.27", "10.0.0.27"),
])
def test_addresses(kind, raw, host):
    conversation, _ = talk(GREETING, b"\x05\x01\x00" + bytes([kind]) + raw + b"\x01\xbb")
    assert (conversation.request.host, conversation.request.port) == (host, 443)


def test_credentials_are_taken_and_isolate():
    conversation, answers = talk(WITH_PASSWORD, credentials(b"alice", b"\x00\xff"), EXAMPLE)
    assert answers == [b"\x05\x02", b"\x01\x00", b""]
    assert conversation.request.isolation == Isolation(b"alice", b"\x00\xff")
    assert "alice" not in repr(conversation.request)


def test_empty_credentials_are_none():
    conversation, _ = talk(WITH_PASSWORD, credentials(b"", b""), EXAMPLE)
    assert conversation.request.isolation == Isolation()


def test_credentials_do_not_run_into_each_other():
    found = {talk(WITH_PASSWORD, credentials(*one), EXAMPLE)[0].request.isolation
             for one in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b""))}
    assert len(found) == 3


@given(cuts=st.lists(st.integers(0, 60), max_size=8), early=st.binary(max_size=20))
@example(cuts=list(range(60)), early=b"GET")
def test_it_does_not_matter_how_bytes_arrive(cuts, early):
    said = WITH_PASSWORD + credentials(b"me", b"secret") + EXAMPLE + early
    edges = [0, *sorted(min(one, len(said)) for one in cuts), len(said)]
    conversation, answers = talk(*(said[a:b] for a, b in zip(edges, edges[1:], strict=False)))
    assert b"".join(answers) == b"\x05\x02\x01\x00"
    assert conversation.request.host == "example.com"
    assert conversation.early == early


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x04\x01\x00\x50", b"\x16\x03\x01"])
def test_another_protocol_is_told_what_this_is(said):
    error = refused(said)
    assert error.answer == b"" and "SOCKS5" in str(error)


def test_no_method_in_common():
    assert refused(b"\x05\x01\x01").answer == b"\x05\xff"
    assert refused(b"\x05\x00").answer == b"\x05\xff"


@pytest.mark.parametrize(("request_", "reply"), [
    (b"\x05\x02\x00\x03\x0bexample.com\x00\x50", SocksReply.COMMAND_NOT_SUPPORTED),  # BIND
    (b"\x05\x03\x00\x01" + bytes(4) + b"\x00\x50", SocksReply.COMMAND_NOT_SUPPORTED),  # UDP
    (b"\x05\x01\x00\x02" + bytes(4) + b"\x00\x50", SocksReply.ADDRESS_TYPE_NOT_SUPPORTED),
    (b"\x05\x01\x00\x03\x0bexample.com\x00\x00", SocksReply.GENERAL_FAILURE),
    (b"\x05\x01\x00\x03\x00\x00\x50", SocksReply.GENERAL_FAILURE),
    (b"\x05\x01\x00\x03\x03a\nb\x00\x50", SocksReply.GENERAL_FAILURE),
    (b"\x05\x01\x00\x03\x04a:80\x00\x50", SocksReply.GENERAL_FAILURE),
    (b"\x05\x01\x00\x03\x03a\xc3\xa9\x00\x50", SocksReply.GENERAL_FAILURE),
    (b"\x04\x01\x00\x03\x03abc\x00\x50", SocksReply.GENERAL_FAILURE),
    (b"\x05\x01\x00\x03\x09abc.oNioN\x00\x50", SocksReply.HOST_UNREACHABLE),
])
def test_a_request_that_cannot_be_met(request_, reply):
    assert refused(GREETING, request_).answer == encode_reply(reply)
    assert encode_reply(reply) == bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])


def test_credentials_in_another_format():
    assert refused(WITH_PASSWORD, b"\x05\x01a\x01b").answer == b"\x01\x01"


@pytest.mark.parametrize(("reason", "code"), [
    # The codes that tor gives its applications.
    (EndReason.RESOLVEFAILED, 4), (EndReason.NOROUTE, 4), (EndReason.CONNECTREFUSED, 5),
    (EndReason.CONNRESET, 5), (EndReason.DONE, 5), (EndReason.EXITPOLICY, 2),
    (EndReason.TIMEOUT, 6), (EndReason.MISC, 1), (EndReason.DESTROY, 1),
    (EndReason.RESOURCELIMIT, 1), (EndReason.HIBERNATING, 1), (EndReason.INTERNAL, 1),
    (EndReason.TORPROTOCOL, 1),
])
def test_reasons_become_codes(reason, code):
    assert SocksReply.of(reason) == code


@given(st.binary(max_size=600), st.binary(max_size=40))
def test_anything_is_taken_or_refused(said, more):
    conversation = SocksConversation()
    for one in (said, more):
        try:
            conversation.receive(one)
        except SocksError:
            return


@given(st.binary(max_size=300))
def test_any_request_is_taken_or_refused(said):
    conversation = SocksConversation()
    conversation.receive(GREETING)
    try:
        conversation.receive(b"\x05\x01\x00\x03" + said)
    except SocksError as error:
        assert error.answer[:2] in (b"\x05\x01", b"\x05\x04")
