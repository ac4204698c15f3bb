"""Names of types."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Real numbers.
Array = NDArray[np.float64]
#: Places in other arrays.
Index = NDArray[np.intp]
#: Which entries of another array.
Mask = NDArray[np.bool_]
#: What to do with samples that are not finite.
NanPolicy = Literal["omit", "raise"]
