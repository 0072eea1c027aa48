"""Says what each path of the API means: a request is checked, admitted, answered and settled."""
