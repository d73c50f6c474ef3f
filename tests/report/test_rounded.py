"""The first line of a report says what was rounded, of a model whose weights are kept too."""

from __future__ import annotations

import pytest

from bitsure.report.rounded import questions_asked, shipped_bytes, summary
from bitsure.results.gguf import GgufOrigin, TensorType
from bitsure.results.quantization import RoundedStates
from bitsure.results.run_files import QuestionCount
from tests.builders.result_files import model_origin, provenance, quantization

MODEL = model_origin().model_copy(update={"parameters": 1_000_000, "bytes_on_disk": 2_000_000})
NO_WEIGHTS = {"modules_quantized": [], "parameter_share": 0.0, "bits_per_weight": 16.0, "relative_error": 0.0}


def states(bits=4, number_format="mxfp4", **sizes) -> RoundedStates:
    errors = {"model.layers.0 keys": 0.1, "model.layers.0 values": 0.3}
    numbers = {"bits": bits, "group_size": 32, "symmetric": True, "format": number_format}
    return RoundedStates(**numbers, errors=errors, off_grid=0.0, always_zero=[], **sizes)


def test_weights_are_those_of_the_whole_model_as_shipped():
    assert (
        summary(quantization(), MODEL) == "weights: 4.2 bits, rounding error 10.0% of their norm, model 672 kB instead of 2 MB."
    )
    assert summary(quantization(), None) == "weights: 4.2 bits, rounding error 10.0% of their norm."


def test_weights_that_are_kept_are_not_rounded_and_keys_and_values_are():
    kv2 = quantization(**NO_WEIGHTS, keys_and_values=states(2, "int", values_per_token=1000.0, bits_per_value=3.0))
    line = (
        "weights: 16 bits, not rounded, model 2 MB; keys and values: 3 bits, rounding error 20.0% of their norm, 375 bytes "
        "instead of 2 kB a token."
    )
    assert summary(kv2, MODEL) == line


def test_activations_are_named_with_their_format_and_without_sizes_in_an_older_file():
    assert summary(quantization(activations=states()), None).endswith(
        "; activations: mxfp4 4 bits, rounding error 20.0% of their norm."
    )


def test_states_of_a_model_from_a_rounded_file_are_compared_with_16_bits():
    rounded_file = MODEL.model_copy(update={"bytes_on_disk": 570_000})
    kv4 = quantization(**NO_WEIGHTS, keys_and_values=states(4, "int", values_per_token=1000.0, bits_per_value=4.5))
    assert summary(kv4, rounded_file).endswith("562 bytes instead of 2 kB a token.")


def test_a_head_that_is_untied_counts_as_shipped():
    """Of 1.1 million parameters 900,000 are quantized to 4.2 bits, the other 200,000 take two bytes as before."""
    rotated = quantization(parameters=1_100_000, parameter_share=9 / 11)
    assert shipped_bytes(rotated, MODEL) == 200_000 * 2 + 900_000 * 4.2 / 8


def test_a_gguf_file_is_shipped_as_it_is():
    types = {"Q4_K": TensorType(tensors=["a"], weights=900_000, bits_per_weight=4.5)}
    assert shipped_bytes(quantization(tensor_types=types, bytes_on_disk=640_000), MODEL) == 640_000
    assert shipped_bytes(quantization(bytes_on_disk=640_000), MODEL) == 672_500


def test_what_is_kept_of_a_gguf_file_takes_the_bits_of_its_decoded_numbers():
    for kind, bits, kept in (("Q8_0", 8.5, 32), ("F16", 16.0, 16)):
        types = {kind: TensorType(tensors=["a"], weights=999_000, bits_per_weight=bits)}
        types["F32"] = TensorType(tensors=["b"], weights=1_000, bits_per_weight=32.0)
        origin = GgufOrigin(sha256="0", bytes=1_000_000, tensor_types=types, not_used=[])
        model = MODEL.model_copy(update={"bytes_on_disk": 1_000_000, "gguf": origin})
        share = quantization().parameter_share
        assert shipped_bytes(quantization(), model) == 1_000_000 * (share * 4.2 + (1 - share) * kept) / 8
        assert shipped_bytes(quantization(**NO_WEIGHTS), model) == 1_000_000  # the file itself


def counts(*pairs):
    return {f"task_{k}": QuestionCount(asked=asked, available=available) for k, (asked, available) in enumerate(pairs)}


@pytest.mark.parametrize(
    ("limit", "questions", "line"),
    [
        (None, counts((40, 40)), None),
        (40, counts((40, 40)), None),
        (40, counts((40, 2376)), "asked: 40 of 2,376 questions of task_0 (task.limit=40)."),
        (40, counts(*[(40, 1000)] * 4), "asked: 160 of 4,000 questions of 4 tasks (task.limit=40)."),
        (40, None, "asked: the first questions of each task only (task.limit=40)."),
    ],
)
def test_a_limit_says_how_many_questions_it_left(limit, questions, line):
    assert questions_asked(provenance(asked={"limit": limit}, questions=questions)) == line


def test_no_provenance_says_nothing_of_questions():
    assert questions_asked(None) is None and questions_asked(provenance()) is None
