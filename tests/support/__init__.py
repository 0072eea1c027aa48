"""What tests of several processes share: starting servers, a whole stack, a TCP proxy that breaks connections."""
