"""What the stored models cost on a CPU: latency, throughput, memory and cold start, by engine.

    python -m kdmodels benchmark --task cxr --csv runs/benchmark.csv

Each combination of a checkpoint and an engine is measured in a process of its own, one after the
other and all on the same number of threads. A round takes the models of a task in turn on one
engine, then on the next; every second round runs backwards, so that a machine that slows down does
so for all. Tables show the median of the rounds. Inputs are noise of the size that the network
takes: decoding and preprocessing are not in these times.
"""

from kdmodels.benchmark.command import run
from kdmodels.benchmark.passes import CHOICES

__all__ = ["CHOICES", "run"]
