"""How large the codes are and how long they take to load, in words and on the page."""

from __future__ import annotations

import re

from markupsafe import escape

from bitsure.compress.load_time import load_times
from bitsure.report import compressibility_table
from bitsure.report.report_contents import About
from bitsure.report.run_report import build
from bitsure.results import Compressibility
from bitsure.results.compressibility import CODER_LABELS, CoderResult, Codes, EntropyLevel, ScaleBits
from tests.builders.answers import paired_runs
from tests.builders.settings import MARGINS, METRIC

HOSTILE = '<script>alert("x")</script>'


def codes(bits, stored, coded, **more):
    """Codes of which every coder makes the same size."""
    result = CoderResult(bits_per_weight=coded, ratio=stored / coded, seconds_to_decode=0.5, decoded_mb_per_second=12.5)
    entropy = EntropyLevel(value=3.25, corrected=3.5, bound=bits / 3.25, n=1234)
    fields = {
        "n": 5_000_000,
        "n_measured": 4_000_000,
        "weights": round(8_000_000 / stored * 8),
        "bits": bits,
        "entropy": {"tensor": entropy, "group": entropy.model_copy(update={"bound": None})},
        "bits_per_weight": stored,
        "beside_bits_per_weight": ScaleBits(stored=1, coded=1),
        "coders": dict.fromkeys(CODER_LABELS, result),
        "best": "range_coder",
        "bits_per_weight_coded": coded,
        "tensors": {},
    }
    return Codes(**(fields | more))


def times(weights, bandwidth):
    return load_times(weights, bandwidth)


def test_size_and_loading_stand_on_the_page(tmp_path):
    weights, states = codes(4.0, 5.0, 4.0), codes(8.0, 8.0, 6.0, format="int8", tokens=512, text=HOSTILE)
    result = Compressibility(weights=weights, activations=states, loading=times(weights, 10))
    sentence = compressibility_table.sentence(result)
    assert sentence == (
        "Size: 5.00 bits per weight as stored, 4.00 with the range coder (the codes have 4.00 bits and an entropy of 3.25). "
        "Fastest to load at 10 MB/s: as stored, 800 ms."
    )
    full, _, _ = paired_runs(30)
    html = build(tmp_path, full, None, METRIC, MARGINS, About("t", compressibility=result)).page.read_text()
    assert str(escape(sentence)) in html and "512 tokens of &lt;script&gt;" in html and html.count("<script") == 1
    # 8 MB take 0.8 s, coded 0.64 s and 0.5 s to decode; 1.6 MB less are worth that below 3.2 MB/s
    cells = re.sub(r"<td [^>]*>", "<td>", html)
    assert "range coder</td><td>4.000</td><td>1.250</td><td>12</td><td>6.4</td><td>1.14 s</td><td>3.2<" in cells
    assert "per group</td><td>4.00</td><td>3.250</td><td>3.500</td><td>–</td><td>1,234<" in cells
    assert "4,000,000 of 5,000,000 codes of weights" in html
    stored = weights.model_copy(update={"best": "as_stored"})
    alone = Compressibility(weights=stored, activations=None, loading=times(weights, 0.1))
    how = "with the zstd of the packed words, decoded on one thread here, 64.5 s"
    assert how in compressibility_table.sentence(alone)
    assert "activations" not in str(compressibility_table.section(alone).coders)
