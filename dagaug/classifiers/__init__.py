"""timm classifiers: construction, training, cross-fitting, linear probes."""
