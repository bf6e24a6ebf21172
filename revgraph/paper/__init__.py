"""The paper's experiments as commands. What is here needs the `experiments` extra, once it is asked for."""

from collections.abc import Mapping

FIGURES: Mapping[str, str] = {
    "overview": "Fig. 1: DeConvNet, SaliNet and DeSaliNet of the strongest class",
    "variants": "Fig. 3: all eight variants at the last pool",
    "selectivity": "Fig. 4: the strongest neuron, another one, and a random mixture",
    "support": "Fig. 5: what of an image is the neuron's support",
    "foreground": "Fig. 6: the last pool and the logits on several pictures",
    "phase": "Fig. 7: the bottleneck as the phase of a Fourier transform",
    "lrn": "Sect. 3.1: local response normalisation reversed as the identity, or by its derivative",
    "sanity": "beyond the paper (Adebayo et al., 2018): weights randomised from the top down",
}
"""Each is a function `figure` in the module of that name."""
