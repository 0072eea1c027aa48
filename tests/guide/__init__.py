"""Every example of the guide, taken from the file it stands in and run as it stands."""
