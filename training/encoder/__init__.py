"""Trains the retrieval encoder: some layers of multilingual-e5-small, taught by all of them."""
