from __future__ import annotations

import gzip
import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bitsure.base.errors import UserError
from bitsure.config.calib_settings import CalibSettings
from bitsure.quantize.calibration import calibration_text
from bitsure.quantize.calibration.calibration_text import locate_text
from bitsure.quantize.calibration.windows import HELD_OUT_WINDOWS, draw_windows
from tests.builders.tokenizers import byte_tokenizer


def calib(path=None, **changes) -> CalibSettings:
    return CalibSettings(**({"name": "text", "path": str(path) if path else None, "nsamples": 4, "seqlen": 32} | changes))


def test_windows_are_exact_seeded_and_apart(calib_file):
    text = locate_text(calib(calib_file), None)
    draw = lambda **changes: draw_windows(text, calib(calib_file, **changes), 4, byte_tokenizer(), None)  # noqa: E731
    windows, held_out = draw()
    assert windows.shape == (4, 32) and held_out.shape == (HELD_OUT_WINDOWS, 32)
    assert torch.equal(draw()[0], windows) and not torch.equal(draw(seed=1)[0], windows)


@pytest.mark.parametrize(
    ("seed", "first", "last", "digest"),
    [
        (0, [19, 21, 21, 261], [265, 80, 261, 223], "ae019f1cd77513cc"),
        (1, [21, 25, 27, 261], [261, 223, 284, 223], "d077dc316c4654a1"),
    ],
)
def test_a_seed_gives_the_windows_it_always_gave(calib_file, seed, first, last, digest):
    """Weights in the store are found by the text's hash and the seed: other windows would be other weights under one key."""
    chosen = calib(calib_file, seed=seed)
    text = locate_text(chosen, None)
    assert text.fingerprint == hashlib.sha256(calib_file.read_bytes()).hexdigest()
    windows, held_out = draw_windows(text, chosen, 4, byte_tokenizer(), None)
    assert held_out[0, :4].tolist() == first and windows[-1, -4:].tolist() == last
    assert hashlib.sha256(held_out.numpy().tobytes() + windows.numpy().tobytes()).hexdigest()[:16] == digest
    assert torch.equal(draw_windows(text, chosen, 0, byte_tokenizer(), None)[1], held_out)  # whatever is drawn


def test_no_window_holds_a_token_of_another(tmp_path):
    """Every word stands once in the text; windows that shared a token would make one stand twice."""
    words = [f"{i:04d}" for i in range(2_000)]
    (tmp_path / "words.txt").write_text("\n\n".join(words))
    chosen, tokenizer = calib(tmp_path / "words.txt"), byte_tokenizer()
    windows, held_out = draw_windows(locate_text(chosen, None), chosen, 4, tokenizer, None)
    drawn = tokenizer.decode(torch.cat([held_out, windows]).flatten()).split("</s>")[:-1]  # the last may be cut
    assert len(drawn) > 70 and len(set(drawn)) == len(drawn) and set(drawn) <= set(words)


def test_windows_are_no_longer_than_the_context(calib_file):
    text = locate_text(calib(calib_file), None)
    assert draw_windows(text, calib(calib_file), 4, byte_tokenizer(), 16)[0].shape == (4, 16)


def draw(path, nsamples=4, **changes):
    chosen = calib(path, **changes)
    return draw_windows(locate_text(chosen, None), chosen, nsamples, byte_tokenizer(), None)


def test_a_short_text_says_how_much_it_has_and_what_fits(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("a" * 319)  # 320 tokens with the end
    with pytest.raises(UserError) as error:
        draw(path)
    assert "short.txt has 320 tokens, but 4 windows of 32 tokens and 8 held out for measuring need 384" in str(error.value)
    assert str(error.value).endswith("Give a longer text, or calib.nsamples=2, or calib.seqlen=26.")
    assert draw(path, 2)[0].shape == (2, 32) and draw(path, seqlen=26)[0].shape == (4, 26)
    with pytest.raises(UserError, match=r"Give a longer text, or calib\.seqlen=40\.$"):
        draw(path, 0, seqlen=64)  # rounding to nearest needs no windows but the held-out
    path.write_text("a" * 63)
    with pytest.raises(UserError, match=r"has 64 tokens, .* Give a longer text\.$"):
        draw(path)


@pytest.mark.parametrize("content", ['{"text": ""}\n{"text": ""}\n', ""])
def test_a_text_without_tokens_is_refused(tmp_path, content):
    (tmp_path / "empty.jsonl").write_text(content * 1_000)
    with pytest.raises(UserError, match=r"empty\.jsonl holds nothing that the tokenizer makes a token of"):
        draw(tmp_path / "empty.jsonl")


def test_empty_documents_leave_no_end_tokens(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "word"}\n' * 300)
    end = byte_tokenizer().eos_token_id
    ids = draw(tmp_path / "a.jsonl")[0].flatten()
    assert not ((ids[1:] == end) & (ids[:-1] == end)).any()


def test_a_folder_is_its_files_and_known_by_all_of_them(tmp_path, calib_file):
    whole = calib_file.read_text().split("\n\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "a.txt").write_text("\n\n".join(whole[:150]))
    (tmp_path / "more" / "b.txt").write_text("\n\n".join(whole[150:]))
    (tmp_path / "notes.md").write_text("no text to calibrate on")
    assert torch.equal(draw(tmp_path)[0], draw(calib_file)[0])
    before = locate_text(calib(tmp_path), None).fingerprint
    assert before == locate_text(calib(tmp_path), None).fingerprint
    (tmp_path / "more" / "b.txt").write_text("another")
    assert locate_text(calib(tmp_path), None).fingerprint != before


def test_another_start_of_documents_is_another_text(calib_file):
    fingerprints = {locate_text(calib(calib_file, document_start=start), None).fingerprint for start in (None, "1", "2")}
    assert len(fingerprints) == 3


def test_random_tokens_are_ordinary_uniform_and_seeded():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    chosen = calib(kind="random", name="random", seqlen=512)
    text = locate_text(chosen, None)
    windows, held_out = draw_windows(text, chosen, 100, tokenizer, None)
    assert windows.shape == (100, 512) and held_out.shape == (8, 512) and windows.dtype == torch.int64
    assert torch.equal(draw_windows(text, chosen, 100, tokenizer, None)[0], windows)
    other = calib(kind="random", name="random", seqlen=512, seed=1)
    assert not torch.equal(draw_windows(text, other, 100, tokenizer, None)[0], windows)
    special = set(tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<tool>"]))
    ordinary = set(range(len(tokenizer))) - special
    counts = torch.bincount(windows.flatten(), minlength=len(tokenizer))
    assert len(special) == 4 and not counts[list(special)].any() and len(text.fingerprint) == 64
    expected = 51_200 / len(ordinary)
    chi_squared = sum((counts[i].item() - expected) ** 2 / expected for i in ordinary)
    assert abs(chi_squared - len(ordinary)) < 5 * (2 * len(ordinary)) ** 0.5


def test_a_hub_file_comes_from_the_mirror(tmp_path):
    file = tmp_path / "datasets" / "org" / "set" / "en" / "part.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"text": "mirrored"}\n')
    found = locate_text(calib(repo="org/set", file="en/part.jsonl", name="c4"), str(tmp_path))
    assert found.files == (file,) and found.name == "c4"


def test_where_the_hub_is_not_to_be_had_it_is_an_error_or_said(tmp_path, monkeypatch):
    def unreachable(*args):
        raise UserError("no network")

    monkeypatch.setattr(calibration_text, "dataset_file", unreachable)
    with pytest.raises(UserError, match="calib=text"):
        locate_text(calib(repo="org/set", file="f.jsonl", name="c4"), None)
    found = locate_text(calib(repo="org/set", file="f.jsonl", name="c4", if_missing="pocket"), None)
    assert found.name == "pocket (c4 is unavailable)" and found.files == (calibration_text.POCKET_TEXT,)
    assert calibration_text.stands_in(found, calib(repo="org/set", file="f.jsonl", name="c4"))


def test_linked_folders_belong_to_a_folder_and_loops_end(tmp_path, calib_file):
    whole = calib_file.read_text().split("\n\n")
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "a.txt").write_text("\n\n".join(whole[:150]))
    (outside / "b.txt").write_text("\n\n".join(whole[150:]))
    (folder / "linked").symlink_to(outside)
    (outside / "back").symlink_to(folder)
    assert torch.equal(draw(folder)[0], draw(calib_file)[0])
    before = locate_text(calib(folder), None)
    assert {str(outside / "b.txt"), str(folder / "linked" / "b.txt")} < set(before.origin["sha256"])
    (outside / "b.txt").write_text("another")
    assert locate_text(calib(folder), None).fingerprint != before.fingerprint


def test_compressed_text_that_would_fill_the_memory_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("bitsure.base.decoded_size.LARGE", 100_000)
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write('{"text": "' + "x" * 1_000_000 + '"}\n')
    with pytest.raises(UserError, match=r"a\.json\.gz has .* bytes and becomes .* when it is read"):
        draw(tmp_path / "a.json.gz")
    pq.write_table(pa.table({"text": ["x" * 1_000] * 10_000}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet has .* bytes and becomes .* when it is read"):
        draw(tmp_path / "b.parquet")
