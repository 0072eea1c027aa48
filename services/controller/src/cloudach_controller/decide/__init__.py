"""These modules decide what a Model needs, from what was observed. None does I/O, which import contracts prove."""
