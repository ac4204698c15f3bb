"""Compositions of functions, differentiated in the cheapest order."""

from gradiator_np._chain.chain import Chain, LinearizedChain
from gradiator_np._chain.errors import ChainEstimate
from gradiator_np._chain.plan import ChainPlan, Operation, plan_chain
from gradiator_np._chain.stages import StageCosts

__all__ = [
    "Chain",
    "ChainEstimate",
    "ChainPlan",
    "LinearizedChain",
    "Operation",
    "StageCosts",
    "plan_chain",
]
