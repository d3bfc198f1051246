# SPDX-License-Identifier: MIT
"""Plots by gnuplot: SVG, a white background, Firn in red."""
import shutil
import subprocess

FIRN, FIRN_TOO = "#c02020", "#e08070"


def draw(path, settings, data, plots, size="900,500"):
    """@data: {name: lines} of data blocks ($name); @plots: what follows "plot".  False where there is no gnuplot."""
    if not shutil.which("gnuplot"):
        return False
    script = [f"set terminal svg size {size} font 'sans-serif,12' background 'white'", f"set output '{path}'",
              "set grid", "set key outside right noenhanced", *settings]
    for name, lines in data.items():
        script += [f"${name} << EOD", *lines, "EOD"]
    script.append("plot " + ", ".join(plots))
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True, timeout=60)
    return True
