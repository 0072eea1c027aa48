"""vLLM, or the simulator, under Ray Serve: on this machine (`local`) and in the replicas of a cluster (`replica`)."""
