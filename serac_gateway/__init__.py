"""serac_gateway: an OpenAI-compatible proxy that makes edits take effect at once.

The method is SERAC (Mitchell et al., ICML 2022, arXiv 2206.06520).
"""

__version__ = "0.1.0"
