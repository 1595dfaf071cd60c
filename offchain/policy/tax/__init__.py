# SPDX-License-Identifier: BSD-3-Clause
"""Who gets how much of the collected tax: from a public list of relays to amounts."""
