"""Whether a deployed model keeps its promise, whether another would do better, and why the money changed (MATHEMATICS §3–8).

Every module takes arrays, knows nothing of ledgers, bundles or cases, and returns the values of `review`.
"""
