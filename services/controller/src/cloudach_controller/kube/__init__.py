"""Only the controller needs these parts of the Kubernetes API: its kinds, and events on Models. The rest is in
`cloudach_kube`.
"""
