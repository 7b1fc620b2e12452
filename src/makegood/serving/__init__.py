"""The decision service: a bundle behind HTTP, every decision in the ledger before it is answered."""
