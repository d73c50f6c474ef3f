"""Quantize a model and prove what changed; a quantizer is one class that derives from `Quantizer`."""

from bitsure.quantize.quantizer import QuantizationJob, QuantizationTarget, Quantizer

__all__ = ["QuantizationJob", "QuantizationTarget", "Quantizer"]
