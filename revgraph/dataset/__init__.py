"""Whole data sets: pictures in by the thousand, a Parquet data set out.

`source` lists the pictures, `explaining` turns a batch of them into rows, `output` keeps the rows and knows
what is left, `machine` runs it all on one machine.
"""
