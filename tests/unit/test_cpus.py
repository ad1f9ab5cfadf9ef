"""The command that runs the engine's tests as smaller CPUs would: which settings a CPU has, and which tests."""

import pytest
from cpus import Outcome, cpu_flags, files, never_run, settings_of

AVX512 = "sse4_1 avx2 avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_1", ["native"]),
        ("sse4_1 avx2 aes", ["sse4.1", "native"]),
        ("sse4_1 avx2 avx_vnni", ["sse4.1", "avx2", "native"]),
        (AVX512, ["sse4.1", "avx2", "native"]),
        (f"{AVX512} avx512_vnni", ["sse4.1", "avx2", "avx512", "native"]),
        (
            f"{AVX512} avx512_vnni avx512_bf16 avx_vnni amx_tile amx_int8 amx_bf16",
            ["sse4.1", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "native"],
        ),
    ],
)
def test_a_cpu_behaves_like_each_smaller_one(flags, expected):
    """The CPU as it is comes last, and the setting that changes nothing is left out."""
    assert [
        setting.name for setting in settings_of(cpu_flags(f"model name\t: x\nflags\t\t: fpu {flags}\n"))
    ] == expected


def test_a_cpu_without_flags_is_run_as_it_is():
    """On a machine whose kernel lists no flags, the tests run once."""
    assert [setting.name for setting in settings_of(cpu_flags("processor : 0\n"))] == ["native"]


def test_the_tests_are_those_that_import_the_engine():
    """Found by their imports: a new file of the engine's tests needs no entry in a list."""
    names = {path.name for path in files()}
    assert {
        "test_int8.py",
        "test_bf16.py",
        "test_infer.py",
        "test_infer_rounding.py",
        "test_batch_invariance.py",
    } <= names
    assert {"test_batch.py", "test_ledger.py", "test_cpus.py"}.isdisjoint(names)


def test_a_test_that_ran_once_is_not_listed():
    """Only what was skipped under all settings has been tried nowhere."""
    small = Outcome(frozenset({"a"}), {"b": "no int8", "c": "no GPU"}, frozenset(), 0)
    large = Outcome(frozenset({"b"}), {"a": "has int8", "c": "no GPU"}, frozenset(), 0)
    assert never_run([small, large]) == {"c": "no GPU"}
