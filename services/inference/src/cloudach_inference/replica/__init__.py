"""These modules run in a replica, or build the Serve application that holds it. They import nothing of `local`."""
