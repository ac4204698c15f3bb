"""Questions about a function: how noisy, which step, is this Jacobian right?"""

from gradiator_np.diagnose.check import JacobianCheck, check_jacobian
from gradiator_np.diagnose.noise import estimate_noise, optimal_step

__all__ = ["JacobianCheck", "check_jacobian", "estimate_noise", "optimal_step"]
