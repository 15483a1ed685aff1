"""How large the parts of a model may be, far beyond any that is published.

A config comes with the weights of whoever made them: a few bytes in it must not cost memory or minutes before anything
is compared with the weights.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_LAYERS = 1_000
MOST_PARAMETERS = 200_000_000_000
"""of a backbone's blocks; InternViT-6B has 5.9 billion"""

Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
"""blocks, layers, convolutions one after the other"""
Width = Annotated[int, Field(gt=0, le=1 << 16)]
"""channels, heads, sampling points"""
Pixels = Annotated[int, Field(gt=0, le=100_000)]
"""or cells, of one side"""
Kept = Annotated[int, Field(gt=0, le=1_000_000)]
"""objects, proposals, samples of an image"""
MOST_VIEW = 64.0
Ratio = Annotated[float, Field(gt=0.0, le=64.0)]
"""of one width to another"""
Rows = Annotated[int, Field(ge=0, le=4_096)]
"""tokens beside those of the patches"""
