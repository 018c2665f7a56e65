"""inference.GRPCInferenceService on top of the service: the Open Inference Protocol over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

import grpc

from amiss.oip import open_inference_pb2 as pb
from amiss_export.errors import BadInput
from amiss_serving.errors import DetectorNotFound, NotReady
from amiss_serving.grpc_bridge import AsyncContext
from amiss_serving.grpc_door import GrpcDoor, Scoring, status_of
from amiss_serving.grpc_repeats import Repeats
from amiss_serving.oip_documents import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
    server_metadata,
)
from amiss_serving.oip_messages import (
    asked_outputs,
    decoder,
    infer_response,
    infer_response_bytes,
    is_raw,
    parameters_of,
    size_bytes,
)
from amiss_serving.oip_parameters import check_load_parameters, timeout_of
from amiss_serving.oip_signature import RECONSTRUCTION
from amiss_serving.service import Answer, Ask, Call, Service, aside

INFERENCE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_STREAM_REQUESTS = 64  # of one stream, read ahead: so many of them may share a batch

Pending = asyncio.Queue["asyncio.Task[pb.ModelStreamInferResponse] | None"]


class InferenceServicer:
    """Each method translates: request, service, response. The names are the wire's."""

    def __init__(self, service: Service, door: GrpcDoor) -> None:
        self._service = service
        self._door = door

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest | BadInput], context: AsyncContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """One response for each request, in order; requests that wait together are batched."""
        pending: Pending = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_REQUESTS)

        async def read() -> None:
            async for request in requests:
                await room.acquire()
                pending.put_nowait(asyncio.create_task(self._part(request, context)))

        reading = asyncio.create_task(read())
        reading.add_done_callback(lambda _: pending.put_nowait(None))
        try:
            while (part := await pending.get()) is not None:
                yield await part
                room.release()
            await reading
        finally:  # the caller may have hung up: nobody waits for the rest
            reading.cancel()
            while not pending.empty():
                if part := pending.get_nowait():
                    part.cancel()

    async def ServerLive(  # noqa: N802
        self, _: pb.ServerLiveRequest, context: AsyncContext
    ) -> pb.ServerLiveResponse:
        async def work(_: Call) -> pb.ServerLiveResponse:
            with suppress(NotReady):
                self._service.check_alive()
                return pb.ServerLiveResponse(live=True)
            return pb.ServerLiveResponse(live=False)

        return await self._door.answer("ServerLive", context, work, quiet=True)

    async def ServerReady(  # noqa: N802
        self, _: pb.ServerReadyRequest, context: AsyncContext
    ) -> pb.ServerReadyResponse:
        async def work(_: Call) -> pb.ServerReadyResponse:
            with suppress(NotReady):
                self._service.check_ready()
                return pb.ServerReadyResponse(ready=True)
            return pb.ServerReadyResponse(ready=False)

        return await self._door.answer("ServerReady", context, work, quiet=True)

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: AsyncContext
    ) -> pb.ModelReadyResponse:
        async def work(_: Call) -> pb.ModelReadyResponse:
            with suppress(NotReady, DetectorNotFound):  # for this question both mean no
                self._service.repository.resolve(request.name, request.version)
                self._service.check_ready()
                return pb.ModelReadyResponse(ready=True)
            return pb.ModelReadyResponse(ready=False)

        return await self._door.answer("ModelReady", context, work, quiet=True)

    async def ServerMetadata(  # noqa: N802
        self, _: pb.ServerMetadataRequest, context: AsyncContext
    ) -> pb.ServerMetadataResponse:
        async def work(_: Call) -> pb.ServerMetadataResponse:
            return pb.ServerMetadataResponse(**server_metadata())

        return await self._door.answer("ServerMetadata", context, work)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: AsyncContext
    ) -> pb.ModelMetadataResponse:
        async def work(call: Call) -> pb.ModelMetadataResponse:
            detector = call.found(self._service.repository.resolve(request.name, request.version))
            return pb.ModelMetadataResponse(**model_metadata(self._service, detector))

        return await self._door.answer("ModelMetadata", context, work)

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, context: AsyncContext
    ) -> pb.ModelConfigResponse:
        async def work(call: Call) -> pb.ModelConfigResponse:
            detector = call.found(self._service.repository.resolve(request.name, request.version))
            config = pb.ModelConfig(**model_config(self._service, detector))
            return pb.ModelConfigResponse(config=config)

        return await self._door.answer("ModelConfig", context, work)

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: AsyncContext
    ) -> pb.ModelStatisticsResponse:
        async def work(_: Call) -> pb.ModelStatisticsResponse:
            statistics = model_statistics(self._service, request.name, request.version)
            return pb.ModelStatisticsResponse(**statistics)

        return await self._door.answer("ModelStatistics", context, work)

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: AsyncContext
    ) -> pb.RepositoryIndexResponse:
        async def work(_: Call) -> pb.RepositoryIndexResponse:
            index = repository_index(self._service.repository, ready=request.ready)
            return pb.RepositoryIndexResponse(
                models=[pb.RepositoryIndexResponse.ModelIndex(**entry) for entry in index]
            )

        return await self._door.answer("RepositoryIndex", context, work)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: AsyncContext
    ) -> pb.RepositoryModelLoadResponse:
        async def work(_: Call) -> pb.RepositoryModelLoadResponse:
            check_load_parameters(request.parameters)
            await self._service.repository.load(request.model_name)
            return pb.RepositoryModelLoadResponse()

        return await self._door.answer("RepositoryModelLoad", context, work)

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: AsyncContext
    ) -> pb.RepositoryModelUnloadResponse:
        async def work(_: Call) -> pb.RepositoryModelUnloadResponse:
            await self._service.repository.unload(request.model_name)
            return pb.RepositoryModelUnloadResponse()

        return await self._door.answer("RepositoryModelUnload", context, work)

    async def _infer(
        self, call: Call, request: pb.ModelInferRequest, context: AsyncContext
    ) -> pb.ModelInferResponse:
        answer = await self._service.score(call, _ask(request).within(context.time_remaining()))
        with call.phase("encode"):
            reconstruction = answer.scored.reconstruction
            size_bytes = 0 if reconstruction is None else reconstruction.nbytes
            return await aside(size_bytes, _response, answer, request)

    async def _part(
        self, request: pb.ModelInferRequest | BadInput, context: AsyncContext
    ) -> pb.ModelStreamInferResponse:
        """The response to one request of a stream: its error is an answer, the stream goes on."""
        call = self._door.open("ModelStreamInfer", context.invocation_metadata())
        code = grpc.StatusCode.OK
        try:
            if isinstance(request, BadInput):
                raise request
            answer = await self._infer(call, request, context)
            return pb.ModelStreamInferResponse(infer_response=answer)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            code, call.error = status_of(error, call)
            request_id = "" if isinstance(request, BadInput) else request.id
            return pb.ModelStreamInferResponse(
                error_message=call.error, infer_response=pb.ModelInferResponse(id=request_id)
            )
        finally:
            call.close(code.name)


def _ask(request: pb.ModelInferRequest) -> Ask:
    return Ask(
        name=request.model_name,
        version=request.model_version,
        decode=decoder(request),
        size_bytes=size_bytes(request),
        timeout_s=timeout_of(parameters_of(request)),
        reconstruct=RECONSTRUCTION in asked_outputs(request),
    )


def _response(answer: Answer, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    outputs, request_id, raw = _form(request)
    return infer_response(answer, outputs, request_id=request_id, raw=raw)


class _Form(NamedTuple):
    """What a response needs to know of its request."""

    outputs: tuple[str, ...]
    request_id: str
    raw: bool


def _form(request: pb.ModelInferRequest) -> _Form:
    return _Form(asked_outputs(request), request.id, is_raw(request))


def _response_bytes(answer: Answer, form: _Form) -> bytes:
    return infer_response_bytes(answer, form.outputs, request_id=form.request_id, raw=form.raw)


def _payload(request: pb.ModelInferRequest) -> bytes:
    return request.raw_input_contents[0] if len(request.raw_input_contents) == 1 else b""


SCORING = {
    "ModelInfer": Scoring(Repeats(pb.ModelInferRequest, _ask, _payload, _form), _response_bytes)
}
