"""These modules carry decisions out. Each writes its kind of object, or asks the store of Ray's state."""
