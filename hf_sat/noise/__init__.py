"""Noise to train against: wrong labels, with the clean ones kept beside them, and corrupted images.

Every draw comes from a generator seeded by `seed` alone; the global random states are neither read nor moved.
"""

from .images import corrupt_image, corrupt_images
from .labels import inject_label_noise, transition_matrix
from .spans import inject_span_noise

__all__ = ["corrupt_image", "corrupt_images", "inject_label_noise", "inject_span_noise", "transition_matrix"]
