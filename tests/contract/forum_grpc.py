"""Asks the node over gRPC with TLS and a token, knowing nothing but what reflection tells: forum_grpc.py ADDRESS CA TOKEN"""

import sys

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, ca, token = sys.argv[1:]
with open(ca, "rb") as file:
    roots = file.read()


def channel(*credentials):
    transport = grpc.ssl_channel_credentials(root_certificates=roots)
    return grpc.secure_channel(address, grpc.composite_channel_credentials(transport, *credentials) if credentials else transport)


with channel(grpc.access_token_call_credentials(token)) as ours, channel() as strangers:
    database = ProtoReflectionDescriptorDatabase(ours)
    services = list(database.get_services())
    assert "staydown.local.v1.Forum" in services, services
    health = ours.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
    assert health(b"", timeout=30) == b"\x08\x01", "SERVING"
    pool = DescriptorPool(database)
    forum = pool.FindServiceByName("staydown.local.v1.Forum")

    def call(name, over=ours, **fields):
        method = forum.FindMethodByName(name)
        request, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        ask = over.unary_unary(f"/{forum.full_name}/{name}", request.SerializeToString, answer.FromString)
        return ask(request(**fields), timeout=30)

    status = call("Status")
    assert status.forum_name == "Example Forum" and len(status.member_id) == 16, status

    digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee99"
    signal = {"type": "sha256", "value": digest}
    before = call("Lookup", signals=[signal])
    assert not before.matches and before.verdict == 1, before
    said = call("Submit", statements=[{"signal": signal, "stance": 1, "labels": ["propaganda"]}])
    assert said.state == 1 and len(said.receipts) == 1, said
    after = call("Lookup", signals=[signal])
    assert after.matches[0].entry.signal.value == digest and after.verdict > 1, after

    for over, expected in ((strangers, grpc.StatusCode.UNAUTHENTICATED), (ours, grpc.StatusCode.NOT_FOUND)):
        try:
            call("GetEntry", over, signal={"type": "sha256", "value": digest[::-1]})
        except grpc.RpcError as refused:
            assert refused.code() == expected, refused
        else:
            sys.exit(f"expected {expected}")
