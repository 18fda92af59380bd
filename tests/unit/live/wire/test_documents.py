"""What driver and replicas tell each other, as JSON and back."""

from __future__ import annotations

import json

import pytest

from kspark.errors import Failure, ProtocolError
from kspark.live.wire import Instructions, Order, Restart, SharedOffer, Start, Welcome, read

OFFER = SharedOffer("/shm/weights", "00ff", (0, 3), 1, 0.25, 1.0)
FAILURE = Failure(1, "host", 0, "ValueError", "bad", "trace")


def sent(document):
    """What arrives of it."""
    return json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("instructions", "text"),
    [
        (Instructions(), '{"stop": false}'),
        (Instructions(True, 0.5), '{"stop": true, "learning_rate": 0.5}'),
        (Instructions(False, (0.5, None)), '{"stop": false, "learning_rate": [0.5, null]}'),
        (Instructions(hold=True), '{"stop": false, "hold": true}'),
        (Instructions(over=True), '{"stop": false, "over": true}'),
        (
            Instructions(False, 0.5, restart=Restart(6, 1)),
            '{"stop": false, "learning_rate": 0.5, "restart": true, "generation": 1, "epoch": 6}',
        ),
        (
            Instructions(restart=Restart(0, 0)),
            '{"stop": false, "restart": true, "generation": 0, "epoch": 0}',
        ),
    ],
)
def test_instructions_travel_without_what_does_not_apply(instructions, text):
    assert json.dumps(instructions.to_json()) == text
    assert Instructions.from_json(json.loads(text)) == instructions


def test_no_instructions_are_to_go_on():
    assert Instructions.from_json({}) == Instructions()


@pytest.mark.parametrize("offer", [None, OFFER])
@pytest.mark.parametrize("start", [Start(4), Start(4, 9, 2), Start(4, generation=3)])
@pytest.mark.parametrize("instructions", [Instructions(), Instructions(True, 0.125)])
def test_a_welcome_arrives_as_it_was(offer, start, instructions):
    welcome = Welcome(3, True, 7, start, instructions, offer)
    assert Welcome.from_json(sent(welcome.to_json())) == welcome


def test_reading_leaves_the_document_as_it_was():
    document = sent(Welcome(3, True, 7, Start(4), Instructions(), OFFER).to_json())
    before = sent(document)
    Welcome.from_json(document)
    assert document == before


def test_an_integer_is_read_where_a_float_is_wanted():
    assert Instructions.from_json({"learning_rate": 1}).learning_rate == 1


@pytest.mark.parametrize(
    "document", [None, [], "text", 3, {}, {"shard": 1}, {**vars(FAILURE), "x": 1}]
)
def test_all_fields_must_be_there_and_no_other(document):
    with pytest.raises(ProtocolError, match=r"Failure must have the fields \['shard', 'host'"):
        read(Failure, document)


@pytest.mark.parametrize("value", [None, "1", 1.0, True, [1], {"a": 1}])
def test_a_value_must_be_of_its_type_and_is_not_shown(value):
    with pytest.raises(ProtocolError) as caught:
        read(Failure, {**vars(FAILURE), "shard": value})
    assert str(caught.value) == "`shard` of Failure must be of type int."


@pytest.mark.parametrize("rate", ["0.5", [0.5, "1"], [[0.5]], {"0": 0.5}, [True]])
def test_a_learning_rate_is_a_number_or_a_list_of_numbers(rate):
    with pytest.raises(ProtocolError, match="`learning_rate` of Instructions must be of type"):
        Instructions.from_json({"learning_rate": rate})


def test_plain_data_is_read():
    assert read(Failure, sent(vars(FAILURE))) == FAILURE


@pytest.mark.parametrize(
    "order",
    [
        Order(0, "stop"),
        Order(4, "train", 2, 0.1, (3, 0), True),
        Order(5, "train", 2, (0.1, None)),
        Order(6, "evaluate"),
    ],
)
def test_an_order_survives_json(order):
    assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"work": "train"}, "Order must have the fields"),
        ({"number": 1, "work": 2}, "`work` of Order must be of type str"),
        ({"number": 1, "work": "train", "counters": [0.5]}, "`counters` of Order"),
    ],
)
def test_a_malformed_order_is_refused(document, reason):
    with pytest.raises(ProtocolError, match=reason):
        Order.from_json(document)
