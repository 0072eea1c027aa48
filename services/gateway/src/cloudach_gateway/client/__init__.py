"""What every byte of a client passes through: HTTP/1.1 within bounds, bodies, the error envelope, the answer."""
