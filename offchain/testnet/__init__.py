# SPDX-License-Identifier: BSD-3-Clause
"""A whole moneTor network on loopback: start the agents, run a scenario, account for every unit."""
