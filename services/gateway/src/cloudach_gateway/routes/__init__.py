"""What is served: requests checked and answered, one module for each kind of route."""
