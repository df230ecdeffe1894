"""Image classifiers: networks by name, training, cross-fitting, linear probes."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations looks for newer versions on the internet
