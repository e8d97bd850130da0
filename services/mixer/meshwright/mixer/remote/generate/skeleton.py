"""A server in Python for a template: it runs as it is, and says where its author's work goes.

One decision to know: it reads the contract from a descriptor set instead of generated modules, so that it runs with any
version of protobuf and beside any other generated code.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from meshwright.mixer.remote.templates import (
    ATTRIBUTE_GENERATOR,
    CHECK,
    CHECK_WITH_OUTPUT,
    QUOTA,
    REPORT,
    RemoteTemplate,
)

CONTRACT = "contract.binpb"

_CONTRACT_PY = '''"""The messages of ${service}, from contract.binpb.

Made by `meshwright adapter gen`: don't edit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MODEL = "istio.mixer.adapter.model.v1beta1"
_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("contract.binpb").read_bytes()).file:
    _pool.AddSerializedFile(_file.SerializeToString())


def message(name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


Request = message("${request}")
Answer = message("${answer}")
${classes}ValidateRequest = message(f"{_MODEL}.ValidateRequest")
ValidateResponse = message(f"{_MODEL}.ValidateResponse")
CreateSessionRequest = message(f"{_MODEL}.CreateSessionRequest")
CreateSessionResponse = message(f"{_MODEL}.CreateSessionResponse")
CloseSessionRequest = message(f"{_MODEL}.CloseSessionRequest")
CloseSessionResponse = message(f"{_MODEL}.CloseSessionResponse")


def add_to_server(adapter: Any, server: Any) -> None:
    """Let the server answer for `adapter`: its methods handle, validate, create_session and close_session."""
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "${service}", {"${method}": _unary(adapter.handle, Request)}
            ),
            grpc.method_handlers_generic_handler(
                f"{_MODEL}.InfrastructureBackend",
                {
                    "Validate": _unary(adapter.validate, ValidateRequest),
                    "CreateSession": _unary(adapter.create_session, CreateSessionRequest),
                    "CloseSession": _unary(adapter.close_session, CloseSessionRequest),
                },
            ),
        )
    )


def _unary(method: Any, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, lambda answer: answer.SerializeToString())
'''

_SERVER_PY = '''"""Serves adapter ${adapter}. Made by `meshwright adapter gen`: your part is adapter.py."""

from __future__ import annotations

import argparse
import asyncio
import signal
import uuid
from pathlib import Path
from typing import Any

import adapter
import contract
import grpc

SESSION = "google.protobuf.Any.type_url"  # says that adapter_config holds a session's id
INVALID = 3  # INVALID_ARGUMENT


class Service:
    """What mixer calls: `handle` with each request, the others when configuration changes."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}

    async def handle(self, request: Any, context: Any) -> Any:
        """Have the adapter answer."""
        try:
            parameters = self.parameters(request.adapter_config)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return await adapter.handle(request, parameters)

    async def validate(self, request: Any, context: Any) -> Any:
        """Mixer shows what a handler would be; a status that isn't OK refuses it."""
        answer = contract.ValidateResponse()
        try:
            self.parameters(request.adapter_config)
        except ValueError as error:
            answer.status.code, answer.status.message = INVALID, str(error)
        return answer

    async def create_session(self, request: Any, context: Any) -> Any:
        """Take a handler's parameters once; its requests then carry the session's id (--session-based)."""
        answer = contract.CreateSessionResponse()
        try:
            parameters = self.parameters(request.adapter_config)
        except ValueError as error:
            answer.status.code, answer.status.message = INVALID, str(error)
            return answer
        answer.session_id = uuid.uuid4().hex
        self.sessions[answer.session_id] = parameters
        return answer

    async def close_session(self, request: Any, context: Any) -> Any:
        """The handler is gone."""
        self.sessions.pop(request.session_id, None)
        return contract.CloseSessionResponse()

    def parameters(self, given: Any) -> Any:
        """The handler's parameters; ValueError when they are none that the adapter takes."""
        if given.type_url == SESSION:
            if given.value.decode() not in self.sessions:
                raise ValueError("unknown session")
            return self.sessions[given.value.decode()]
${parameters}

async def serve(listen: str, credentials: grpc.ServerCredentials | None) -> None:
    """Serve until SIGTERM."""
    server = grpc.aio.server()
    contract.add_to_server(Service(), server)
    port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    await server.start()
    print(f"${adapter} listens on port {port}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(1.0)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9070")
    parser.add_argument("--cert", type=Path, help="certificate in PEM; without it plain text")
    parser.add_argument("--key", type=Path, help="its key in PEM")
    parser.add_argument("--ca", type=Path, help="whose certificates callers must show; without it none")
    given = parser.parse_args()
    credentials = None
    if given.cert:
        authorities = given.ca.read_bytes() if given.ca else None
        pair = (given.key.read_bytes(), given.cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authorities, require_client_auth=bool(given.ca))
    asyncio.run(serve(given.listen, credentials))


if __name__ == "__main__":
    main()
'''

_ADAPTER_PY = '''"""Adapter ${adapter}: mixer's ${variety} for template ${template}."""

from __future__ import annotations

from typing import Any

import contract


async def handle(request: Any, parameters: Any) -> Any:
${handle}

def check_parameters(parameters: Any) -> None:
    """Raise ValueError when a handler can't have these parameters: whoever applies it is told."""
'''

_HANDLE = {
    CHECK: '''    """Decide: a status that isn't OK denies. The answer may be used again for as long as it says."""
    answer = contract.Answer(valid_use_count=1)
    answer.valid_duration.FromSeconds(1)
    # Your decision about request.instance goes here, for example:
    # answer.status.code, answer.status.message = 7, f"{request.instance.name} says no"  # PERMISSION_DENIED
    return answer
''',
    CHECK_WITH_OUTPUT: '''    """Decide; header operations can have what is put out (`ACTION.output.FIELD`)."""
    answer = contract.Answer()
    answer.result.valid_use_count = 1
    answer.result.valid_duration.FromSeconds(1)
    # Your decision about request.instance goes here, for example:
    # answer.result.status.code, answer.result.status.message = 7, f"{request.instance.name} says no"
    # answer.output.FIELD = ...
    return answer
''',
    QUOTA: '''    """Grant amounts: one entry for each quota that is asked for."""
    answer = contract.Answer()
    for name, asked in request.quota_request.quotas.items():
        # Your count goes here; this grants whatever is asked for.
        answer.quotas[name].granted_amount = asked.amount
        answer.quotas[name].valid_duration.FromSeconds(1)
    return answer
''',
    REPORT: '''    """Take instances; answer only once they are safe. When this raises, all of them come again."""
    for instance in request.instances:
        print(f"{instance.name}: {instance}", flush=True)  # your backend goes here
    return contract.Answer()
''',
    ATTRIBUTE_GENERATOR: '''    """Put values out that become attributes by attributeBindings (`$$out.FIELD`)."""
    answer = contract.Answer()
    # Your look-up for request.instance goes here, for example:
    # answer.FIELD = look_up(request.instance)
    return answer
''',
}
_VARIETIES = {
    CHECK: "checks",
    REPORT: "reports",
    QUOTA: "quotas",
    ATTRIBUTE_GENERATOR: "questions for attributes",
    CHECK_WITH_OUTPUT: "checks with output",
}
_TYPED = """        parameters = contract.Params()
        if given.type_url and not given.Unpack(parameters):
            raise ValueError(f"not parameters of this adapter: {given.type_url}")
        adapter.check_parameters(parameters)
        return parameters
"""
_NONE = "        return None\n"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The texts of the modules."""

    contract: str
    server: str
    adapter: str


def skeleton(adapter: str, template: RemoteTemplate, parameters: str | None) -> Skeleton:
    """Write the modules; `parameters` is the full name of the adapter's message Params."""
    _, service, method = template.method.split("/")
    request = template.instance.file.pool.FindServiceByName(service).FindMethodByName(method)
    classes = f'InstanceMsg = message("{template.instance.full_name}")\n'
    if template.output is not None:
        classes += f'OutputMsg = message("{template.output.full_name}")\n'
    if parameters is not None:
        classes += f'Params = message("{parameters}")\n'
    contract = Template(_CONTRACT_PY).substitute(
        service=service,
        method=method,
        request=request.input_type.full_name,
        answer=request.output_type.full_name,
        classes=classes,
    )
    own = Template(_ADAPTER_PY).substitute(
        adapter=adapter,
        template=template.name,
        variety=_VARIETIES[template.variety],
        handle=Template(_HANDLE[template.variety]).substitute(),
    )
    server = Template(_SERVER_PY).substitute(adapter=adapter, parameters=_NONE if parameters is None else _TYPED)
    return Skeleton(contract, server, own)
