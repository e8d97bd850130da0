"""The messages of grpc's test service, as far as the cases here use them: names and numbers of fields are facts of the
protocol. Kept in a pool of their own; the same table is handed to Node as a descriptor set.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "grpc.testing"

# Message: fields as "number name type"; a type with a capital is a message, `repeated` stands in front of the type.
_MESSAGES: dict[str, list[str]] = {
    "Empty": [],
    "BoolValue": ["1 value bool"],
    "Payload": ["1 type int32", "2 body bytes"],
    "EchoStatus": ["1 code int32", "2 message string"],
    "SimpleRequest": [
        "1 response_type int32",
        "2 response_size int32",
        "3 payload Payload",
        "6 response_compressed BoolValue",
        "7 response_status EchoStatus",
        "8 expect_compressed BoolValue",
        "9 fill_server_id bool",
    ],
    "SimpleResponse": ["1 payload Payload", "4 server_id string"],
    "StreamingInputCallRequest": ["1 payload Payload", "2 expect_compressed BoolValue"],
    "StreamingInputCallResponse": ["1 aggregated_payload_size int32"],
    "ResponseParameters": ["1 size int32", "2 interval_us int32", "3 compressed BoolValue"],
    "StreamingOutputCallRequest": [
        "1 response_type int32",
        "2 response_parameters repeated ResponseParameters",
        "3 payload Payload",
        "7 response_status EchoStatus",
    ],
    "StreamingOutputCallResponse": ["1 payload Payload"],
}

# Service: methods as "Name Request Response", `stream` in front of what is streamed.
SERVICES: dict[str, list[str]] = {
    "TestService": [
        "EmptyCall Empty Empty",
        "UnaryCall SimpleRequest SimpleResponse",
        "StreamingOutputCall StreamingOutputCallRequest stream StreamingOutputCallResponse",
        "StreamingInputCall stream StreamingInputCallRequest StreamingInputCallResponse",
        "FullDuplexCall stream StreamingOutputCallRequest stream StreamingOutputCallResponse",
        "HalfDuplexCall stream StreamingOutputCallRequest stream StreamingOutputCallResponse",
        "UnimplementedCall Empty Empty",
    ],
    "UnimplementedService": ["UnimplementedCall Empty Empty"],
}

_Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    made = descriptor_pb2.FileDescriptorProto(name="interop.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = made.message_type.add(name=name)
        for field in fields:
            number, field_name, *labels, kind = field.split()
            label = _Field.LABEL_REPEATED if labels else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=int(number), label=label)
            if kind[0].isupper():
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                added.type = getattr(_Field, f"TYPE_{kind.upper()}")
    for name, methods in SERVICES.items():
        service = made.service.add(name=name)
        for method in methods:
            words = iter(method.split())
            added_method = service.method.add(name=next(words))
            word = next(words)
            if word == "stream":
                added_method.client_streaming, word = True, next(words)
            added_method.input_type, word = f".{PACKAGE}.{word}", next(words)
            if word == "stream":
                added_method.server_streaming, word = True, next(words)
            added_method.output_type = f".{PACKAGE}.{word}"
    return made


FILE = _file()
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(FILE)


def message(name: str) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def descriptor_set() -> bytes:
    """Return what a client in another language can load."""
    return descriptor_pb2.FileDescriptorSet(file=[FILE]).SerializeToString()


Empty = message("Empty")
BoolValue = message("BoolValue")
Payload = message("Payload")
EchoStatus = message("EchoStatus")
SimpleRequest = message("SimpleRequest")
SimpleResponse = message("SimpleResponse")
StreamingInputCallRequest = message("StreamingInputCallRequest")
StreamingInputCallResponse = message("StreamingInputCallResponse")
ResponseParameters = message("ResponseParameters")
StreamingOutputCallRequest = message("StreamingOutputCallRequest")
StreamingOutputCallResponse = message("StreamingOutputCallResponse")
