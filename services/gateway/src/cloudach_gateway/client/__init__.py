"""Every byte from and to a client passes through here: HTTP/1.1 within bounds, bodies, error envelope, answer."""
