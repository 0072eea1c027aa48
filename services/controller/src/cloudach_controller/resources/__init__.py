"""These modules make the objects of a Model as they are applied. Pure."""
