"""Figures from plain numbers; matplotlib is imported when one is drawn, not before."""

from hwsim.report.figures.bars import memory_bars, time_waterfall, traffic_bars
from hwsim.report.figures.changes import delta_bars, ranges, tornado
from hwsim.report.figures.fields import sweep_heatmap
from hwsim.report.figures.lines import latency_cdf, scaling, sweep_lines
from hwsim.report.figures.points import accuracy_strip, pareto, roofline
from hwsim.report.figures.values import Measure, Operator, Point, Range

__all__ = [
    "Measure",
    "Operator",
    "Point",
    "Range",
    "accuracy_strip",
    "delta_bars",
    "latency_cdf",
    "memory_bars",
    "pareto",
    "ranges",
    "roofline",
    "scaling",
    "sweep_heatmap",
    "sweep_lines",
    "time_waterfall",
    "tornado",
    "traffic_bars",
]
