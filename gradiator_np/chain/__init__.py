"""Compositions of functions, differentiated in the cheapest order."""

from gradiator_np.chain.chain import Chain
from gradiator_np.chain.plan import ChainPlan, plan_chain
from gradiator_np.chain.stages import StageCosts

__all__ = ["Chain", "ChainPlan", "StageCosts", "plan_chain"]
