"""These modules follow the cluster: mirrors of objects, the queue of Models to look at, and how soon to look again."""
