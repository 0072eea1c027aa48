"""What an operator does: API keys made, changed and deleted, usage read, and the command line `cloudach`."""
