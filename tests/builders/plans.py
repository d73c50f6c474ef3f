"""Plans on small real models, as the pipeline makes them."""

from __future__ import annotations

from bitsure.base.store import Store
from bitsure.config.calib_settings import CalibSettings
from bitsure.config.schema import ModelSettings
from bitsure.models.locate import locate_model
from bitsure.models.tokenizers import load_tokenizer
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.check import check_plan
from bitsure.quantize.libraries import prequantized
from bitsure.quantize.libraries.prequantized import Prequantized
from bitsure.quantize.make import Quantized, ensure_quantized
from bitsure.quantize.plan import Plan
from bitsure.quantize.quantizer import Quantizer
from tests.builders.families import FAMILIES, build


def plan(path, quant: Quantizer, calib_file, dtype: str = "float32") -> Plan:
    calib = CalibSettings(name="text", path=str(calib_file), nsamples=16, seqlen=64)
    source = locate_model(ModelSettings(path=str(path)), None)
    return Plan(source, quant, calib, locate_text(calib, None), dtype, prequantized.locate(quant, None))


def taken(parent, checkpoint, calib_file, tmp_path) -> Quantized:
    """A checkpoint as a run takes it: checked, read where it is, and proved."""
    planned = plan(parent, Prequantized(path=str(checkpoint)), calib_file)
    check_plan(planned, Store(tmp_path))
    return ensure_quantized(planned, Store(tmp_path / "store"), tmp_path / "log")


def save_family(family: str, path, tokenizer):
    """A small model of a family on disk, with another's tokenizer."""
    model = build(family, **FAMILIES[family])
    model.save_pretrained(path)
    load_tokenizer(tokenizer).save_pretrained(path)
    return model
