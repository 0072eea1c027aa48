"""Any level-triggered controller needs this: informers, a work queue, a Lease. It knows nothing of Models."""
