# SPDX-License-Identifier: BSD-3-Clause
"""Whether priority can be felt: real relays with a bandwidth limit, as processes of their own, and
premium and other clients that download through them at the same time.

Nobody pays here: a client tells each hop that it is premium (`grant`), as the paper's own zero
overhead runs do, so that the figures are the transport's alone.
"""
