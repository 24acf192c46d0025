"""The HTTP API, as the contract has it."""
