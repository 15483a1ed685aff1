"""Official models (OpenGVLab/PIIP) as ours: their configs, their state-dict keys, their checkpoints.

`configs` reads a resolved config and `branches` its branches, `keys` names every tensor of a backbone as the official
code does, `dino`, `upernet` and `classifiers` know those heads, `convert` turns files into files.
`piip.weights.opengvlab` is the way in.
"""
