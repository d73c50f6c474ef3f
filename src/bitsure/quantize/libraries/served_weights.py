"""A quantized model that a server runs: its weights are not seen here, and nothing is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from bitsure.base.errors import UserError
from bitsure.config.server_settings import ServerAddress
from bitsure.quantize.quantizer import QuantizationJob, Quantizer


@dataclass
class ServedWeights(Quantizer):
    """A model of a server that speaks OpenAI's completions protocol, compared with `model`."""

    url: str | None = None  # of the protocol, such as http://host:8000/v1
    served_name: str | None = None  # what the server calls it; None: by the only model that it has

    def __post_init__(self) -> None:
        """Raise UserError without an address, or for an impossible one."""
        if self.url is None:
            raise UserError("quant=served: needs quant.url, the address of a server, such as quant.url=http://host:8000/v1")
        _ = self.server

    @property
    def name(self) -> str:
        """`served`, with what the server calls the model."""
        return f"served {self.served_name}" if self.served_name else "served"

    @property
    def server(self) -> ServerAddress | None:
        """The server."""
        return ServerAddress.of("quant", self)

    @property
    def has_noise_control(self) -> bool:
        """False: what the weights' errors are is not known."""
        return False

    def quantize(self, job: QuantizationJob) -> None:
        """Raise UserError: the server has quantized it."""
        raise UserError(f"quant={self.name}: the server has the weights; they are not quantized here.")
