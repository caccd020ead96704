"""`train.tables.times`: the time of these weights by this engine, and of no others."""

import pytest

from train.tables.times import latency_ms, machine

TEXT = """# A processor, 2 cores
sha256,engine_name,latency_ms
0123456789ab,"OpenVINO, bf16",3.0
0123456789ab,"OpenVINO, bf16",1.0
0123456789ab,"OpenVINO, bf16",1.5
0123456789ab,"PyTorch, float32",9.0
ffff56789abc,"OpenVINO, bf16",
"""


def test_it_is_the_median_of_the_rounds(tmp_path):
    file = tmp_path / "engines.csv"
    file.write_text(TEXT)
    assert machine(file) == "A processor, 2 cores"
    assert latency_ms("0123456789ab" + "0" * 52, "OpenVINO, bf16", file) == pytest.approx(1.5)
    assert latency_ms("0123456789ab" + "0" * 52, "another engine", file) is None
    assert latency_ms("ffff56789abc" + "0" * 52, "OpenVINO, bf16", file) is None


def test_without_a_benchmark_there_are_no_times(tmp_path):
    assert machine(tmp_path / "none") == "" and latency_ms("0", "x", tmp_path / "none") is None
