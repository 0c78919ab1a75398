"""Pickles are read without calling what they name, and without more memory than they hold."""

from __future__ import annotations

import io
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data.pickled import array_of, load

CALLS_NDARRAY = (
    b"\x80\x02}K\x00cnumpy\nndarray\n((K\x01tX\x01\x00\x00\x00O"
    b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tRtRs."
)
REDUCED = pickle.dumps(np.arange(3), protocol=2)
TWICE = b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
REFUSED = {
    "an object array over bytes": CALLS_NDARRAY,
    "ndarray of numbers": CALLS_NDARRAY.replace(b"\x01\x00\x00\x00O", b"\x01\x00\x00\x00q"),
    "a dtype made of objects": REDUCED.replace(b"i8", b"O8"),
    "another function": b"cos\nsystem\n(S'true'\ntR.",
    "a changed function": b"c_codecs\nencode\n}b.",
    "a changed function by its attributes": b"c_codecs\nencode\n(N}S'__defaults__'\n)stb.",
    "numbers that are elsewhere": b"S'x'\nQ.",
    "a place of the memo far out": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a place of the memo far out, as text": b"Np2000000000\n.",
    "bytes of 2**60": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",
    "a whole number of 2**31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "text of 2**32 characters": b"\x80\x02X\xff\xff\xff\xffx.",
    "a frame of 2**60": b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",
    "tuples in tuples": b"\x80\x02N" + b"\x85" * 200_000 + b"Ns.",
    "a tuple of two tuples of two and so on": b"\x80\x02}N\x85q\x00" + TWICE + b"Ns.",
    "the same without a memo": b"\x80\x02}N\x85" + b"2\x86" * 60 + b"Ns.",
    "nothing": b"",
    "no pickle": b"\xff\xff",
    "cut": REDUCED[:-9],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_only_an_attack_holds_is_an_exception(case: str) -> None:
    """Never a crash. Run apart, with no more memory than a reader needs."""
    code = (
        "import sys, io; from gnn_core.data.pickled import load\n"
        "try:\n    load(io.BytesIO(sys.stdin.buffer.read()), 'iuf', encoding='latin1')\n"
        "except Exception as error:\n"
        "    assert not isinstance(error, MemoryError); print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=REFUSED[case],
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"refused\n"), done.stderr.decode()[-500:]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", ">i8", "u1"])
def test_arrays_come_out_as_they_went_in(protocol: int, dtype: str) -> None:
    table = np.arange(12).reshape(3, 4).astype(dtype)
    arrays = {0: table, 1: np.asfortranarray(table), 2: table[:0], 3: np.array(5, dtype)}
    if protocol < 2:  # copy_reg._reconstructor and so on: not what torch and Planetoid write
        arrays = {0: table}
    file = io.BytesIO(pickle.dumps(arrays, protocol) + b"what follows")
    found = load(file, "iuf", encoding="latin1")
    for key, array in arrays.items():
        np.testing.assert_array_equal(array_of(found[key]), array)
        assert array_of(found[key]).dtype == array.dtype
    assert file.read() == b"what follows"
