"""What only the controller has of the Kubernetes API: kinds, and events on Models. The rest is `cloudach_kube`."""
