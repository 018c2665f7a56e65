"""amiss.v1.ModelService over gRPC: which version of a detector answers. It only translates."""

from amiss.v1 import model_pb2 as pb
from amiss_serving.grpc_bridge import AsyncContext
from amiss_serving.grpc_door import GrpcDoor
from amiss_serving.service import Call, Service

MODELS = pb.DESCRIPTOR.services_by_name["ModelService"]


class ModelServicer:
    """amiss.v1.ModelService on top of the service's repository."""

    def __init__(self, service: Service, door: GrpcDoor) -> None:
        self._service = service
        self._door = door

    async def Promote(  # noqa: N802  the wire's name
        self, request: pb.PromoteRequest, context: AsyncContext
    ) -> pb.PromoteResponse:
        async def work(_: Call) -> pb.PromoteResponse:
            done = await self._service.repository.promote(
                request.name, request.version, request.label
            )
            return pb.PromoteResponse(
                version=done.version, version_before=done.before or 0, labels=done.labels
            )

        return await self._door.answer("Promote", context, work)

    async def Rollback(  # noqa: N802  the wire's name
        self, request: pb.RollbackRequest, context: AsyncContext
    ) -> pb.RollbackResponse:
        async def work(_: Call) -> pb.RollbackResponse:
            done = await self._service.repository.rollback(request.name)
            return pb.RollbackResponse(
                version=done.version, version_before=done.before or 0, labels=done.labels
            )

        return await self._door.answer("Rollback", context, work)
