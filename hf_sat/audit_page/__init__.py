"""The label audit as one HTML file that needs no network, and its plots as PNG.

Independent of the Trainer: it draws whatever table of labels it is given.
"""

from .curves import curves_of_log
from .data import PageData
from .plots import plot_curves, plot_transition
from .render import render_page, save_page

__all__ = ["PageData", "curves_of_log", "plot_curves", "plot_transition", "render_page", "save_page"]
