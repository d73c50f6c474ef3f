"""Plans on small real models, as the pipeline makes them."""

from __future__ import annotations

from bitsure import models, quantize
from bitsure.config import Calib, Model
from bitsure.quantize import calib_data, prequantized
from bitsure.quantizers import Quant


def plan(path, quant: Quant, calib_file, dtype: str = "float32") -> quantize.Plan:
    calib = Calib(name="text", path=str(calib_file), nsamples=16, seqlen=64)
    source = models.locate(Model(path=str(path)), None)
    return quantize.Plan(source, quant, calib, calib_data.locate(calib, None), dtype, prequantized.locate(quant, None))
