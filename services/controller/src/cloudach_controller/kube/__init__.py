"""The Kubernetes API as the controller uses it; nothing else imports the client library."""
