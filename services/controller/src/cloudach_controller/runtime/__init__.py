"""What any level-triggered controller needs: informers, a work queue, a Lease. Knows nothing of Models."""
