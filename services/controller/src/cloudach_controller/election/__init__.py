"""These modules agree with other controllers who works: one leader of a release, and one controller of a namespace."""
