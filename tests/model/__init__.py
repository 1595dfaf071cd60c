# SPDX-License-Identifier: BSD-3-Clause
"""The protocol as a finite model, searched through to the end."""
