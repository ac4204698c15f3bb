"""Train a network through a simulator that has no derivatives.

A gunner's network sees a target (distance and time of arrival) and chooses launch speed and
angle; the simulator, an ODE with drag and wind and an event at the ground, says where and when
the shot lands. The loss is the mean squared miss.

Three ways to the gradient, at the same number of simulator runs, all with Adam:

* through the simulator: backpropagation, with the simulator's part estimated (its two inputs
  cost two runs a shot, whatever the size of the network);
* SPSA: both-sided differences of the loss along one random direction of all weights;
* evolution strategy: the same, averaged over eight random directions.

Run ``python docs/examples/train_through_simulator.py``; it needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from gradiator_np.adapters.torch import gradiator

Array = NDArray[np.float64]

SHOTS = 8
GOAL = 5e-3  # mean squared miss, in units of (100 m, 10 s)
GRAVITY, DRAG, WIND = 9.81, 0.004, -5.0


class Gun:
    """Where and when shots land; counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, launch: Array) -> Array:
        """(b, 2) of speed / 40 m/s and angle / rad to (b, 2) of metres / 100 and seconds / 10."""
        return np.array([self.shoot(40 * speed, angle) for speed, angle in launch])

    def shoot(self, speed: float, angle: float) -> list[float]:
        """One run of the ODE."""
        self.runs += 1

        def slope(_: float, state: Array) -> list[float]:
            _, _, u, w = state
            drag = DRAG * np.hypot(u - WIND, w)
            return [u, w, -drag * (u - WIND), -drag * w - GRAVITY]

        def ground(_: float, state: Array) -> float:
            return float(state[1])

        ground.terminal, ground.direction = True, -1  # type: ignore[attr-defined]
        start = [0.0, 0.0, speed * np.cos(angle), speed * np.sin(angle)]
        out = solve_ivp(slope, (0, 60), start, events=ground, rtol=1e-7, atol=1e-7)
        return [out.y_events[0][0][0] / 100, out.t_events[0][0] / 10]


def network() -> torch.nn.Module:
    """Target to launch: speeds of 20 to 60 m/s, angles of 0.2 to 1.4."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2), torch.nn.Sigmoid()
    ).double()
    return net


def launch_of(net: torch.nn.Module, targets: Any) -> Any:
    """The network's choice in the simulator's units."""
    scale, shift = torch.tensor([1.0, 1.2]).double(), torch.tensor([0.5, 0.2]).double()
    return net(targets) * scale + shift


def targets(seed: int) -> Any:
    """Targets that can be hit: where random launches land."""
    rng = np.random.default_rng(seed)
    launches = np.column_stack([rng.uniform(0.6, 1.4, SHOTS), rng.uniform(0.4, 1.2, SHOTS)])
    return torch.tensor(Gun()(launches))


def through_the_simulator(gun: Gun) -> Callable[[torch.nn.Module, Any], float]:
    """Backpropagation: one call for the batch, two more for its gradient."""
    simulator = gradiator(gun, method="2-point", batch_dims=1, rel_step=1e-4)

    def gradient(net: torch.nn.Module, wanted: Any) -> float:
        loss = (simulator(launch_of(net, wanted)) - wanted).pow(2).sum(1).mean()
        loss.backward()
        return float(loss.detach())

    return gradient


def by_random_directions(gun: Gun, directions: int) -> Callable[[torch.nn.Module, Any], float]:
    """SPSA with one direction of signs, an evolution strategy with several normal ones."""
    generator = torch.Generator().manual_seed(1)

    def loss_of(net: torch.nn.Module, wanted: Any) -> float:
        with torch.no_grad():
            landed = torch.tensor(gun(launch_of(net, wanted).numpy()))
            return float((landed - wanted).pow(2).sum(1).mean())

    def gradient(net: torch.nn.Module, wanted: Any) -> float:
        weights = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        total, values = torch.zeros_like(weights), []
        for _ in range(directions):
            d = torch.randn(len(weights), generator=generator, dtype=torch.float64)
            d = d.sign() if directions == 1 else d
            side = []
            for sign in (1, -1):
                torch.nn.utils.vector_to_parameters(weights + sign * 0.01 * d, net.parameters())
                side.append(loss_of(net, wanted))
            total += (side[0] - side[1]) / 0.02 * d / directions
            values += side
        torch.nn.utils.vector_to_parameters(weights, net.parameters())
        start = 0
        for p in net.parameters():
            p.grad = total[start : start + p.numel()].view_as(p).clone()
            start += p.numel()
        return sum(values) / len(values)

    return gradient


def train(
    gun: Gun, gradient: Callable[[torch.nn.Module, Any], float], budget: float, rate: float
) -> tuple[float, int]:
    """Adam until the goal is met or the runs are used up; the best loss and the runs used."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    best, step = np.inf, 0
    wanted = targets(0)
    while gun.runs < budget and best > GOAL:
        optimizer.zero_grad()
        best = min(best, gradient(net, wanted))
        optimizer.step()
        step += 1
    return best, gun.runs


def main() -> None:
    gun = Gun()
    best, used = train(gun, through_the_simulator(gun), 4000, 0.05)
    print(f"through the simulator      loss {best:.1e} after {used} runs (goal {GOAL:.0e})")
    for name, directions in (("SPSA", 1), ("evolution strategy", 8)):
        tried = []
        for rate in (0.005, 0.02, 0.05):
            gun = Gun()
            tried.append(train(gun, by_random_directions(gun, directions), used, rate)[0])
        print(f"{name:<26} loss {min(tried):.1e} after {used} runs (best of three rates)")


if __name__ == "__main__":
    main()
