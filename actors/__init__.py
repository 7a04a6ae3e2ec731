"""The pipeline: queue, nozzle, transformer, publisher. Knows nothing of browsers or HTTP."""
