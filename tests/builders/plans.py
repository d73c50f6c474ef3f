"""Plans on small real models, as the pipeline makes them."""

from __future__ import annotations

from bitsure.base.store import Store
from bitsure.config.other_quantizers import Prequantized
from bitsure.config.quantizers import Quant
from bitsure.config.schema import CalibSettings, ModelSettings
from bitsure.models import source as models
from bitsure.quantize import plan as quantize
from bitsure.quantize.calibration import windows as calib_data
from bitsure.quantize.checkpoint import prequantized
from tests.builders.families import FAMILIES, build


def plan(path, quant: Quant, calib_file, dtype: str = "float32") -> quantize.Plan:
    calib = CalibSettings(name="text", path=str(calib_file), nsamples=16, seqlen=64)
    source = models.locate(ModelSettings(path=str(path)), None)
    return quantize.Plan(source, quant, calib, calib_data.locate(calib, None), dtype, prequantized.locate(quant, None))


def taken(parent, checkpoint, calib_file, tmp_path) -> quantize.Quantized:
    """A checkpoint as a run takes it: checked, read where it is, and proved."""
    planned = plan(parent, Prequantized(path=str(checkpoint)), calib_file)
    quantize.check(planned, Store(tmp_path))
    return quantize.ensure(planned, Store(tmp_path / "store"), tmp_path / "log")


def save_family(family: str, path, tokenizer):
    """A small model of a family on disk, with another's tokenizer."""
    model = build(family, **FAMILIES[family])
    model.save_pretrained(path)
    models.load_tokenizer(tokenizer).save_pretrained(path)
    return model
