"""What runs in a replica, and the Serve applications that hold it. Imports nothing of `local`."""
