"""Discrete-event models on SimPy: what closed forms cannot see."""
