# SPDX-License-Identifier: BSD-3-Clause
"""Scripts that deploy the contracts and start the parties, each with a `main()` as Brownie has it.

They are the commands of `monetor` under the names that a Brownie project gives them.
"""
