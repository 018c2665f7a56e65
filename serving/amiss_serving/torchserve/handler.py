"""What runs in a TorchServe worker: the one file of Amiss inside an archive.

TorchServe takes the only class that is defined here; all else is imported from the installed Amiss.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from amiss_serving.torchserve.batch import answer_batch
from amiss_serving.torchserve.unpacked import open_unpacked


class Handler:
    """A door: TorchServe's requests in, a batch at a time, its answers out."""

    def initialize(self, context: Any) -> None:
        """Load the archive's detector. Raises AmissError, and TorchServe logs it, where it cannot.

        context: TorchServe's own, of the worker.
        """
        self._detector = open_unpacked(context.system_properties, context.manifest)

    def handle(self, data: Sequence[Mapping[str, bytes]], context: Any) -> list[bytes]:
        """One answer for each request of the batch, in order, each with its own status."""
        request_ids = [context.get_request_id(i) for i in range(len(data))]
        answers = answer_batch(self._detector, data, request_ids)
        for i, answer in enumerate(answers):
            context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, i)
            context.set_response_content_type(i, answer.content_type)
        return [answer.body for answer in answers]
