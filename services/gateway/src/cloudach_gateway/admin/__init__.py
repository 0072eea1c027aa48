"""The operator's side: administration of API keys, reading of usage, and the command line `cloudach`."""
